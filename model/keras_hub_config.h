// keras_hub_config.h - the configuration of a KerasHub preset as the config.json of a Hugging Face
// folder of the same model, and back. What the one can say and the other cannot is refused.
#ifndef NYB_MODEL_KERAS_HUB_CONFIG_H_
#define NYB_MODEL_KERAS_HUB_CONFIG_H_

#include "core/json.h"
#include "formats/keras_hub.h"

// *out is owned by the caller (json_decref). NYB_E_UNSUPPORTED: the preset computes something that
// the folder's model does not, or nybble does not know its class; err names the key and its value.
// On an error *out is NULL.
NYB_NODISCARD nyb_status nyb_hub_config(json_t **out, const nyb_keras_file *file, nyb_err *err);

// The whole config.json of a preset of the model that a folder's config.json describes, with
// weights of `dtype` (f32, f16, bf16). `name` stands for the folder in errors.
//
//   tied  out: the head is the embedding
//
// NYB_E_UNSUPPORTED  KerasHub has no such model; err says why.
NYB_NODISCARD nyb_status nyb_hub_config_make(json_t **out, bool *tied, const json_t *folder,
                                             nyb_dtype dtype, const char *name, nyb_err *err);

#endif // NYB_MODEL_KERAS_HUB_CONFIG_H_
