// tokenizer_private.h - what an open tokenizer is made of, for the files that fill it.
#ifndef NYB_MODEL_TOKENIZER_PRIVATE_H_
#define NYB_MODEL_TOKENIZER_PRIVATE_H_

#include "core/json.h"
#include "formats/gguf.h"
#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/normalizer.h"
#include "model/postprocessor.h"
#include "model/pretokenizer.h"
#include "model/spm_model.h"
#include "model/token_decoder.h"
#include "model/unigram.h"
#include "model/wordpiece.h"
#include "nybble/tokenizer.h"

// What cuts a piece of text into tokens.
typedef enum nyb_token_model {
    NYB_TOKEN_BPE,
    NYB_TOKEN_UNIGRAM,
    NYB_TOKEN_WORDPIECE,
} nyb_token_model;

struct nyb_tokenizer {
    nyb_arena arena;
    const char *kind;
    nyb_vocabulary vocabulary; // the model's
    nyb_vocabulary extra;      // added tokens that the model does not have
    nyb_added_tokens added;
    nyb_normalizer *normalizer;
    nyb_pretokenizer *pretokenizer;
    nyb_token_model model;
    nyb_bpe bpe;             // the one that `model` says is set
    nyb_unigram unigram;     //
    nyb_wordpiece wordpiece; //
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

// Fills t from the document of a tokenizer.json, or from one that was made of other files. `name`
// is the file for errors.
NYB_NODISCARD nyb_status nyb_tokenizer_load_document(nyb_tokenizer *t, const json_t *document,
                                                     const char *name, nyb_err *err);

// Reads the model's "vocab", an object of ids by text.
NYB_NODISCARD nyb_status nyb_tokenizer_read_vocabulary(nyb_tokenizer *t, const json_t *model,
                                                       const char *name, nyb_err *err);

// The kinds of "model" besides BPE.
NYB_NODISCARD nyb_status nyb_tokenizer_load_wordpiece(nyb_tokenizer *t, const json_t *model,
                                                      const char *name, nyb_err *err);
NYB_NODISCARD nyb_status nyb_tokenizer_load_unigram(nyb_tokenizer *t, const json_t *model,
                                                    const char *name, nyb_err *err);

// Reads the tokenizer inside a GGUF file into t, ready for use.
// The arrays of a GGUF file as a tokenizer.json, which is the caller's (json_decref), or as a
// SentencePiece model, which borrows the file's texts and has its pieces in the arena.
NYB_NODISCARD nyb_status nyb_gguf_bpe_document(json_t **out, const nyb_gguf *file, nyb_err *err);
NYB_NODISCARD nyb_status nyb_gguf_spm_model(nyb_spm_model *out, const nyb_gguf *file,
                                            nyb_arena *arena, nyb_err *err);
NYB_NODISCARD nyb_status nyb_tokenizer_load_gguf(nyb_tokenizer *t, const char *path, nyb_err *err);

// Fills t from a SentencePiece model, whose texts are copied. Otherwise as nyb_tokenizer_load_spm().
NYB_NODISCARD nyb_status nyb_tokenizer_build_spm(nyb_tokenizer *t, const nyb_spm_model *m,
                                                 const char *path, nyb_spm_rules rules,
                                                 nyb_prefix_scheme prefix, nyb_err *err);

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

// Reads a vocab.json with its merges.txt, or a vocab.txt, into t.
//
//   with_ends  whether add_bos_token and add_eos_token count
NYB_NODISCARD nyb_status nyb_tokenizer_load_merges(nyb_tokenizer *t,
                                                   const nyb_tokenizer_config *config,
                                                   const char *vocab_path, const char *merges_path,
                                                   bool *with_ends, nyb_err *err);
NYB_NODISCARD nyb_status nyb_tokenizer_load_lines(nyb_tokenizer *t,
                                                  const nyb_tokenizer_config *config,
                                                  const char *path, nyb_err *err);

// Adds the tokens that the files name and finds bos, eos, unk and pad. Values that t has already
// stay where the files say nothing.
//
//   with_ends  add_bos_token and add_eos_token count: there is no post-processor
NYB_NODISCARD nyb_status nyb_tokenizer_config_apply(const nyb_tokenizer_config *config,
                                                    nyb_tokenizer *t, bool with_ends, nyb_err *err);

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
