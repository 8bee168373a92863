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

#endif // NYB_MODEL_GGUF_CONFIG_H_
