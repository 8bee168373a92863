// config_wrapper.h - models that have more than a language model inside: its configuration, and what
// lies around it in the file.
#ifndef NYB_MODEL_CONFIG_WRAPPER_H_
#define NYB_MODEL_CONFIG_WRAPPER_H_

#include "core/json.h"
#include "core/status.h"

// A model type whose config.json holds a language model's as "text_config".
typedef struct nyb_wrapper {
    const char *model_type;
    const char *text_type; // of the model inside; NULL: it says so itself
    const char *defaults;  // JSON: what text_config leaves out, where it names no other model_type
} nyb_wrapper;

// NULL behind the last.
const nyb_wrapper *nyb_wrapper_at(size_t index);
const nyb_wrapper *nyb_wrapper_named(const char *model_type);

// The configuration of the language model: for a wrapper a new document, for others `doc` itself
// with one reference more. The caller gives it back.
//
// NYB_E_FORMAT  a wrapper without "text_config".
NYB_NODISCARD nyb_status nyb_wrapper_inside(json_t **out, const json_t *doc, const char *name,
                                            nyb_err *err);

// Whether a tensor belongs to a part of a wrapper that is not its language model.
bool nyb_wrapper_is_beside(const char *tensor);

// Names of those parts as patterns ("re:..."), NULL behind the last.
const char *nyb_wrapper_pattern(size_t index);

// What stands before the names of the language model's tensors; NULL behind the last.
const char *nyb_wrapper_prefix(size_t index);

#endif // NYB_MODEL_CONFIG_WRAPPER_H_
