// normalizer.h - the steps that rewrite text before it is cut: a list of nodes, each of a kind
// from one table.
#ifndef NYB_MODEL_NORMALIZER_H_
#define NYB_MODEL_NORMALIZER_H_

#include <jansson.h>

#include "core/arena.h"
#include "model/charsmap.h"
#include "model/pieces.h"

typedef struct nyb_normalizer nyb_normalizer;
typedef struct nyb_normalizer_kind nyb_normalizer_kind;

// SentencePiece's normalizer_spec.
typedef struct nyb_spm_spaces {
    bool add_dummy_prefix, remove_extra, escape;
} nyb_spm_spaces;

struct nyb_normalizer {
    const nyb_normalizer_kind *kind;
    nyb_normalizer *next; // runs after this one
    const char *text;     // what is put in, by Prepend and Replace
    size_t length;
    nyb_pattern *pattern; // Replace
    nyb_charsmap charsmap;
    nyb_spm_spaces spaces;
    bool left, right;                        // Strip
    bool clean, chinese, accents, lowercase; // BertNormalizer: which of its steps run
};

// Reads the "normalizer" value of a tokenizer.json, Sequences flattened; null gives NULL.
// Patterns are freed by nyb_normalizer_clear(), the rest is the arena's. `name` is the file.
//
// NYB_E_UNSUPPORTED  a kind that nybble does not have, by its name.
NYB_NODISCARD nyb_status nyb_normalizer_load(nyb_normalizer **out, nyb_arena *arena,
                                             const json_t *value, const char *name, nyb_err *err);

// The steps of a SentencePiece model: Replace of " " by "▁" after the charsmap, or the library's
// own.
NYB_NODISCARD nyb_status nyb_normalizer_spaces(nyb_normalizer **out, nyb_arena *arena,
                                               nyb_charsmap charsmap, nyb_err *err);
NYB_NODISCARD nyb_status nyb_normalizer_spm(nyb_normalizer **out, nyb_arena *arena,
                                            nyb_charsmap charsmap, nyb_spm_spaces spaces,
                                            nyb_err *err);

void nyb_normalizer_clear(nyb_normalizer *list); // NULL is fine

// Rewrites `text` by all steps; `spare` is working memory, and so is the matcher of `pieces`.
NYB_NODISCARD nyb_status nyb_normalizer_run(const nyb_normalizer *list, nyb_bytes *text,
                                            nyb_bytes *spare, nyb_pieces *pieces, nyb_err *err);

#endif // NYB_MODEL_NORMALIZER_H_
