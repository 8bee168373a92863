// gguf_config.h - the metadata of a GGUF file as the config.json that a Hugging Face folder of the
// same model has, so that one reader checks both.
#ifndef NYB_MODEL_GGUF_CONFIG_H_
#define NYB_MODEL_GGUF_CONFIG_H_

#include "core/json.h"
#include "formats/gguf_names.h"
#include "model/config.h"

// *out is owned by the caller (json_decref).
//
// NYB_E_FORMAT       a value is missing or of the wrong kind.
// NYB_E_UNSUPPORTED  an architecture or a feature that has no counterpart here; err names it.
// On an error *out is NULL.
NYB_NODISCARD nyb_status nyb_gguf_config(json_t **out, const nyb_gguf *file, nyb_err *err);

// By how much Llama 3's scaling slows the positions of a pair (transformers,
// _compute_llama3_parameters, with its usual 1, 4 and 8192).
double nyb_gguf_llama3_divisor(double frequency, double factor);

enum { NYB_GGUF_TABLES = 2 };

// Tensors of the file that are a part of the configuration in a folder: divisors of the positions.
typedef struct nyb_gguf_table {
    const char *name; // NULL: none
    const float *values;
    size_t count;
} nyb_gguf_table;

// Adds to `head` what nyb_gguf_config() reads, for a model.
//
//   tables  out, in the head's arena or the model's configuration
//
// NYB_E_UNSUPPORTED  GGUF has no key for something that the model has.
NYB_NODISCARD nyb_status nyb_gguf_add_config(nyb_gguf_head *head, const nyb_gguf_arch *arch,
                                             const nyb_model_config *config, const char *name,
                                             nyb_gguf_table tables[NYB_GGUF_TABLES], nyb_err *err);

// Adds the tokenizer in `folder`, filled up to `vocab` tokens.
//
// NYB_E_UNSUPPORTED  GGUF has no word for a part of it; err names it.
// Others as nyb_tokenizer_open().
NYB_NODISCARD nyb_status nyb_gguf_add_tokenizer(nyb_gguf_head *head, const char *folder,
                                                size_t vocab, nyb_err *err);

#endif // NYB_MODEL_GGUF_CONFIG_H_
