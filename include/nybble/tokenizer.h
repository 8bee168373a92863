// tokenizer.h - text to token ids and back, as a checkpoint's own tokenizer files say.
//
// Reads tokenizer.json (the Hugging Face form, model kinds BPE, WordPiece and Unigram),
// tokenizer.model (the SentencePiece form, kinds BPE and unigram), vocab.json with merges.txt
// (byte-level BPE) or vocab.txt (WordPiece). Ids of tokenizer.json are exactly those of the
// `tokenizers` library. A part of a tokenizer that nybble does not know is refused by its name when
// the file is opened; nothing is ever skipped silently.
//
// An open tokenizer never changes: any number of threads may encode and decode with it.
#ifndef NYB_TOKENIZER_H_
#define NYB_TOKENIZER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nybble/status.h"

typedef struct nyb_tokenizer nyb_tokenizer;

// A list of ids that grows. The caller owns it; zero-initialised it is valid and empty.
typedef struct nyb_tokens {
    uint32_t *at;       // [count]
    size_t count, room; // ids held, ids that fit before the list grows
} nyb_tokens;

// Frees the ids; the list is empty and usable.
NYB_API void nyb_tokens_clear(nyb_tokens *tokens);

// Appends one id. NYB_E_NOMEM leaves the list as it was.
NYB_API NYB_NODISCARD nyb_status nyb_tokens_add(nyb_tokens *tokens, uint32_t id, nyb_err *err);

// How a tokenizer.model of kind BPE without a tokenizer.json beside it is read (unigram models
// are always read as the sentencepiece library does). The two differ in spaces at
// the start, at the end and in runs, and in control tokens such as "</s>" written in the text.
typedef enum nyb_spm_rules {
    // As transformers' AutoTokenizer: runs of spaces are kept, control tokens in the text are
    // recognised, a space is put in front only when tokenizer_config.json or config.json names
    // a tokenizer class that does so, and a token is added at the start only when
    // tokenizer_config.json says so.
    NYB_SPM_RULES_TRANSFORMERS = 0,
    // As the sentencepiece library: the model file's own normalizer, control tokens in the text
    // are plain text. `add_special` puts the model's begin-of-text token in front.
    NYB_SPM_RULES_SENTENCEPIECE,
} nyb_spm_rules;

typedef struct nyb_tokenizer_params {
    nyb_spm_rules spm_rules; // has no effect on a tokenizer.json
} nyb_tokenizer_params;

#define NYB_TOKENIZER_DEFAULTS ((nyb_tokenizer_params){.spm_rules = NYB_SPM_RULES_TRANSFORMERS})

// Opens the tokenizer inside a GGUF file, or that of a checkpoint folder, of which the first of
// these counts: tokenizer.json,
// tokenizer.model, vocab.json with merges.txt (or encoder.json with vocab.bpe), vocab.txt.
// tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json beside it are
// read where they are there; for the last two forms they name the tokenizer class, and without
// one it is GPT-2's or BERT's.
//
//   params  NULL: NYB_TOKENIZER_DEFAULTS
//
// Truncation and padding that a tokenizer.json asks for are left to the caller: every token of
// the text comes back.
//
// NYB_E_IO           a file cannot be read, or the folder holds no tokenizer.
// NYB_E_FORMAT       a file's content breaks its format.
// NYB_E_UNSUPPORTED  err names the component (model kind, normalizer, pre-tokenizer, decoder,
//                    post-processor or pattern) that nybble does not have.
// NYB_E_NOMEM        memory ran out.
// After an error *out is NULL.
NYB_API NYB_NODISCARD nyb_status nyb_tokenizer_open(nyb_tokenizer **out, const char *folder,
                                                    const nyb_tokenizer_params *params,
                                                    nyb_err *err);

// NULL is fine.
NYB_API void nyb_tokenizer_close(nyb_tokenizer *tokenizer);

// Appends the ids of `length` bytes of UTF-8 to out. NUL is a character like any other.
//
//   length       in [0, 2^30]
//   add_special  adds what the tokenizer's post-processor adds (begin-of-text and the like)
//
// Tokens such as "<|endoftext|>" that are written in the text become their ids either way.
//
// NYB_E_FORMAT   the text is not UTF-8; err names the offset of the first wrong byte.
// NYB_E_ARG      length is out of range.
// NYB_E_NUMERIC  a pattern reached its match limit on this text.
// NYB_E_NOMEM    memory ran out.
// After an error out holds what it held before.
NYB_API NYB_NODISCARD nyb_status nyb_tokenizer_encode(const nyb_tokenizer *tokenizer,
                                                      const char *text, size_t length,
                                                      bool add_special, nyb_tokens *out,
                                                      nyb_err *err);

// The text of `count` ids, with a NUL behind it that *length does not count. Bytes that are not
// UTF-8 (a character cut in two at an end) come out as U+FFFD. Ids that stand for no token give
// nothing.
//
//   skip_special  leaves out tokens that are marked as special
//   text          the caller's, freed by nyb_text_free(); NULL after an error
//
// NYB_E_NOMEM  memory ran out.
NYB_API NYB_NODISCARD nyb_status nyb_tokenizer_decode(const nyb_tokenizer *tokenizer,
                                                      const uint32_t *ids, size_t count,
                                                      bool skip_special, char **text,
                                                      size_t *length, nyb_err *err);

// NULL is fine.
NYB_API void nyb_text_free(char *text);

// Reads a whole file, or standard input when path is "-", as it is, with a NUL behind it that
// *length does not count.
//
//   text  the caller's, freed by nyb_text_free(); NULL after an error
//
// NYB_E_IO     the system refused.
// NYB_E_NOMEM  memory ran out.
NYB_API NYB_NODISCARD nyb_status nyb_text_read(char **text, size_t *length, const char *path,
                                               nyb_err *err);

// One more than the largest id. Ids below it may be unused.
NYB_API size_t nyb_tokenizer_size(const nyb_tokenizer *tokenizer);

// Ids of the begin-of-text, end-of-text, unknown and padding tokens, or -1 where there is none.
NYB_API int64_t nyb_tokenizer_bos(const nyb_tokenizer *tokenizer);
NYB_API int64_t nyb_tokenizer_eos(const nyb_tokenizer *tokenizer);
NYB_API int64_t nyb_tokenizer_unk(const nyb_tokenizer *tokenizer);
NYB_API int64_t nyb_tokenizer_pad(const nyb_tokenizer *tokenizer);

// The token's text as the vocabulary spells it (byte-level vocabularies spell a space "Ġ"),
// NUL-terminated and owned by the tokenizer; NULL for an unused id. Its length goes to *length,
// which may be NULL.
NYB_API const char *nyb_tokenizer_text(const nyb_tokenizer *tokenizer, uint32_t id, size_t *length);

// The id of a token spelled so, or -1.
NYB_API int64_t nyb_tokenizer_find(const nyb_tokenizer *tokenizer, const char *text, size_t length);

// Whether the token is marked as special (control tokens; left out by skip_special).
NYB_API bool nyb_tokenizer_is_special(const nyb_tokenizer *tokenizer, uint32_t id);

// What the tokenizer is, for people: "byte-level BPE", "BPE with byte fallback", "SentencePiece
// BPE", ... Static text.
NYB_API const char *nyb_tokenizer_kind(const nyb_tokenizer *tokenizer);

#endif // NYB_TOKENIZER_H_
