// pattern.h - the patterns of tokenizer files: plain text, or a regular expression written for
// Oniguruma, which is translated to PCRE2's syntax where the two differ.
#ifndef NYB_MODEL_PATTERN_H_
#define NYB_MODEL_PATTERN_H_

#include "model/bytes.h"

typedef struct nyb_pattern nyb_pattern;

// What one thread needs to match: not shared, good for any pattern.
typedef struct nyb_matcher nyb_matcher;

// Plain text. Empty text is NYB_E_UNSUPPORTED.
NYB_NODISCARD nyb_status nyb_pattern_text(nyb_pattern **out, const char *text, size_t length,
                                          nyb_err *err);

// NYB_E_UNSUPPORTED: the expression is wrong, or uses something that has no translation; err
// says which.
NYB_NODISCARD nyb_status nyb_pattern_regex(nyb_pattern **out, const char *text, size_t length,
                                           nyb_err *err);
void nyb_pattern_free(nyb_pattern *pattern); // NULL is fine

NYB_NODISCARD nyb_status nyb_matcher_new(nyb_matcher **out, nyb_err *err);
void nyb_matcher_free(nyb_matcher *matcher); // NULL is fine

// Appends ranges that cover all of the text (valid UTF-8), in order: matches with the flag set,
// what lies between them without. An empty match gives an empty range, except directly behind
// another match.
//
// NYB_E_NUMERIC  a limit on backtracking was reached.
NYB_NODISCARD nyb_status nyb_pattern_find(const nyb_pattern *pattern, nyb_matcher *matcher,
                                          const char *text, size_t length, nyb_ranges *out,
                                          nyb_err *err);

// Appends PCRE2's spelling of an Oniguruma expression to out. For nyb_pattern_regex() and tests.
NYB_NODISCARD nyb_status nyb_pattern_translate(nyb_bytes *out, const char *text, size_t length,
                                               nyb_err *err);

#endif // NYB_MODEL_PATTERN_H_
