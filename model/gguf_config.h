// gguf_config.h - the metadata of a GGUF file as the config.json that a Hugging Face folder of the
// same model has, so that one reader checks both.
#ifndef NYB_MODEL_GGUF_CONFIG_H_
#define NYB_MODEL_GGUF_CONFIG_H_

#include "core/json.h"
#include "formats/gguf.h"

// *out is owned by the caller (json_decref).
//
// NYB_E_FORMAT       a value is missing or of the wrong kind.
// NYB_E_UNSUPPORTED  an architecture or a feature that has no counterpart here; err names it.
// On an error *out is NULL.
NYB_NODISCARD nyb_status nyb_gguf_config(json_t **out, const nyb_gguf *file, nyb_err *err);

// Adds to `head` what nyb_gguf_config() reads, from a folder's config.json. `name` stands for it in
// errors.
//
//   divisors  out: the table that goes into the tensor 'rope_freqs.weight', [*count], in the head's
//             arena; NULL: there is none
//
// NYB_E_FORMAT       a value is missing.
// NYB_E_UNSUPPORTED  GGUF has no key for something that the model has.
NYB_NODISCARD nyb_status nyb_gguf_add_config(nyb_gguf_head *head, const json_t *doc,
                                             const char *name, const float **divisors,
                                             size_t *count, nyb_err *err);

// Adds the tokenizer in `folder`, filled up to `vocab` tokens.
//
// NYB_E_UNSUPPORTED  GGUF has no word for a part of it; err names it.
// Others as nyb_tokenizer_open().
NYB_NODISCARD nyb_status nyb_gguf_add_tokenizer(nyb_gguf_head *head, const char *folder,
                                                size_t vocab, nyb_err *err);

#endif // NYB_MODEL_GGUF_CONFIG_H_
