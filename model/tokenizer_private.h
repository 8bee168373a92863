// tokenizer_private.h - what an open tokenizer is made of, for the files that fill it.
#ifndef NYB_MODEL_TOKENIZER_PRIVATE_H_
#define NYB_MODEL_TOKENIZER_PRIVATE_H_

#include "core/arena.h"
#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/normalizer.h"
#include "model/postprocessor.h"
#include "model/pretokenizer.h"
#include "model/token_decoder.h"
#include "nybble/tokenizer.h"

struct nyb_tokenizer {
    nyb_arena arena;
    const char *kind;
    nyb_vocabulary vocabulary; // the model's
    nyb_vocabulary extra;      // added tokens that the model does not have
    nyb_added_tokens added;
    nyb_normalizer *normalizer;
    nyb_pretokenizer *pretokenizer;
    nyb_bpe bpe;
    nyb_postprocessor post;
    nyb_decoder *decoder; // NULL: tokens are joined by spaces
    int64_t bos, eos, unk, pad;
    // Decoding by the rules of the sentencepiece library, in the decoder's place.
    bool decode_as_spm;
    nyb_spm_spaces spaces;
    const char *unk_surface; // what an unknown token decodes to
    size_t unk_surface_length;
};

// Reads tokenizer.json into t. `path` is the file's.
NYB_NODISCARD nyb_status nyb_tokenizer_load_json(nyb_tokenizer *t, const char *path, nyb_err *err);

// Reads tokenizer.model into t.
//
//   prefix  for the transformers rules: where a space comes in front
NYB_NODISCARD nyb_status nyb_tokenizer_load_spm(nyb_tokenizer *t, const char *path,
                                                nyb_spm_rules rules, nyb_prefix_scheme prefix,
                                                nyb_err *err);

// What the files beside a tokenizer say about it. Zero-initialised it says nothing.
typedef struct nyb_tokenizer_config {
    json_t *tokenizer; // tokenizer_config.json; NULL: not there
    json_t *specials;  // special_tokens_map.json
    json_t *added;     // added_tokens.json
    json_t *model;     // config.json
} nyb_tokenizer_config;

NYB_NODISCARD nyb_status nyb_tokenizer_config_open(nyb_tokenizer_config *out, const char *folder,
                                                   nyb_err *err);
void nyb_tokenizer_config_close(nyb_tokenizer_config *config);

// Where a space comes in front with the tokenizer class that the files name.
nyb_prefix_scheme nyb_tokenizer_config_prefix(const nyb_tokenizer_config *config);

// Adds the tokens that the files name and finds bos, eos, unk and pad. Values that t has already
// stay where the files say nothing.
//
//   has_json  the tokenizer is a tokenizer.json, whose post-processor then counts
NYB_NODISCARD nyb_status nyb_tokenizer_config_apply(const nyb_tokenizer_config *config,
                                                    nyb_tokenizer *t, bool has_json, nyb_err *err);

// A token's text and how it is looked for; id and pattern are found here. A token that neither
// the model nor the list has gets the next free id.
NYB_NODISCARD nyb_status nyb_tokenizer_add(nyb_tokenizer *t, nyb_added_token token,
                                           const char *name, nyb_err *err);

// Reads an added token's flags and text from {"content": ..., "lstrip": ...}.
NYB_NODISCARD nyb_status nyb_added_token_read(nyb_added_token *out, const json_t *value,
                                              const char *name, nyb_err *err);

// Text by the rules of the sentencepiece library, appended to out.
NYB_NODISCARD nyb_status nyb_spm_decode(const nyb_tokenizer *t, const uint32_t *ids, size_t count,
                                        nyb_bytes *out, nyb_err *err);

#endif // NYB_MODEL_TOKENIZER_PRIVATE_H_
