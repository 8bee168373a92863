// tokenizer_cuts.h - the ways to cut text before it is merged that GGUF has names for.
#ifndef NYB_MODEL_TOKENIZER_CUTS_H_
#define NYB_MODEL_TOKENIZER_CUTS_H_

#include "core/arena.h"
#include "core/json.h"

typedef struct nyb_tokenizer_cut {
    const char *name;
    const char *pre_tokenizer, *normalizer; // JSON, as in a tokenizer.json
    bool whole_first;                       // a piece that is a token is taken without merging
} nyb_tokenizer_cut;

// NULL behind the last.
const nyb_tokenizer_cut *nyb_tokenizer_cut_at(size_t index);

// NULL when there is none of this name.
const nyb_tokenizer_cut *nyb_tokenizer_cut_named(const char *name, size_t length);

// The name of a pre_tokenizer value, in a tokenizer that takes pieces that are tokens whole or does
// not; NULL when it has none. The arena is for working memory.
const char *nyb_tokenizer_cut_name(nyb_arena *arena, const json_t *pre_tokenizer, bool whole_first);

#endif // NYB_MODEL_TOKENIZER_CUTS_H_
