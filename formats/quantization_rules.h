// quantization_rules.h - a configuration as a list of rules: the first that matches a module's
// name answers, no match means "not quantised".
#ifndef NYB_FORMATS_QUANTIZATION_RULES_H_
#define NYB_FORMATS_QUANTIZATION_RULES_H_

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include "formats/quantization.h"

typedef enum nyb_rule_kind {
    NYB_RULE_NAME,    // the whole name
    NYB_RULE_PART,    // the last parts of the name, "lm_head"
    NYB_RULE_PATTERN, // a regular expression, matched from the first character on
    NYB_RULE_ALL,
} nyb_rule_kind;

typedef struct nyb_rule {
    struct nyb_rule *next;
    nyb_rule_kind kind;
    const char *text;
    pcre2_code *pattern;
    nyb_quantized answer;
} nyb_rule;

struct nyb_quantization {
    nyb_arena arena;
    const char *name; // the file, for errors
    const char *method;
    nyb_rule *first, **last;
};

// Appends a rule. NYB_E_FORMAT: the text is not a regular expression.
NYB_NODISCARD nyb_status nyb_rules_add(nyb_quantization *q, nyb_rule_kind kind, const char *text,
                                       nyb_quantized answer, nyb_err *err);

// Each turns its method's configuration into rules.
NYB_NODISCARD nyb_status nyb_rules_of_gptq(nyb_quantization *q, const json_t *config, nyb_err *err);
NYB_NODISCARD nyb_status nyb_rules_of_awq(nyb_quantization *q, const json_t *config, nyb_err *err);
NYB_NODISCARD nyb_status nyb_rules_of_compressed_tensors(nyb_quantization *q, const json_t *config,
                                                         nyb_err *err);

// Leaves out the modules that the list `key` of the configuration names, if there is one. Its names
// are parts of module names, which readers match in different ways; whole last parts are what all
// of them agree on. The file has the last word: a layer with a plain weight is plain.
NYB_NODISCARD nyb_status nyb_rules_add_plain(nyb_quantization *q, const json_t *config,
                                             const char *key, nyb_err *err);

NYB_NODISCARD nyb_status nyb_rules_of_fp8(nyb_quantization *q, const json_t *config, nyb_err *err);

// Reads the two sides of a block that shares a scale, [rows, columns], from the key `name`.
NYB_NODISCARD nyb_status nyb_rules_read_block(nyb_layout_spec *spec, const nyb_quantization *q,
                                              const json_t *value, const char *name, nyb_err *err);

NYB_NODISCARD nyb_status nyb_rules_of_blocks(nyb_quantization *q, const json_t *document,
                                             nyb_err *err);

// Bits that nybble reads, of q's file. `where` says what has them.
NYB_NODISCARD nyb_status nyb_rules_check_bits(const nyb_quantization *q, size_t bits,
                                              const char *where, nyb_err *err);

#endif // NYB_FORMATS_QUANTIZATION_RULES_H_
