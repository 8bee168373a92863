// keras_policy.h - what config.json says about a quantised layer, as Keras 3.15 writes it.
#ifndef NYB_FORMATS_KERAS_POLICY_H_
#define NYB_FORMATS_KERAS_POLICY_H_

#include "formats/keras_layers.h"

// The name of the layer's dtype policy before it is quantised: "float32", "mixed_bfloat16". NULL:
// the policy is quantised already.
const char *nyb_keras_source_policy(const nyb_keras_layer *layer);

// A layer's quantization_config. Each is new, and NULL when there is no memory.
json_t *nyb_keras_int8_config(void);
json_t *nyb_keras_int4_config(long long block); // -1: a scale for each channel
json_t *nyb_keras_float8_config(void);
json_t *nyb_keras_gptq_config(unsigned bits, long long group, bool symmetric);

// Under which key a map of policies has the sublayer of a layer: a pattern that the end of its path
// matches, as Keras puts the scopes in front that the layer happens to be built in. In the arena;
// NULL when there is no room.
char *nyb_keras_policy_key(nyb_arena *arena, const nyb_keras_layer *part);

// Writes mode and quantization_config into the layer's configuration, which changes that of the
// whole file. For a sublayer that the configuration does not list, the policy of the layer that it
// is part of becomes a map with an entry for it.
//
// NYB_E_NOMEM
NYB_NODISCARD nyb_status nyb_keras_set_policy(const nyb_keras_layer *layer, const char *mode,
                                              json_t *quantization, nyb_err *err);

#endif // NYB_FORMATS_KERAS_POLICY_H_
