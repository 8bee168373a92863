// activations.h - what the inputs of quantised layers are rounded to when they run.
#ifndef NYB_ACTIVATIONS_H_
#define NYB_ACTIVATIONS_H_

#include <stdbool.h>

#include "nybble/status.h"

// int8: x becomes the nearest whole number to x / s in [-127, 127], s = (absmax + 1e-7) / 127; the
// layer's output is a sum of whole numbers in 32 bits for each group of weights, times scales.
// float8: x becomes s times the E4M3 float nearest to x / s, s = absmax / 448.
//
// absmax is over a token's input, or over that of all tokens of a sequence. Where the checkpoint
// has a scale for a layer's input (input_scale), s is that one instead.
typedef enum nyb_activation_kind {
    NYB_ACTIVATIONS_NONE = 0, // they stay f32
    NYB_ACTIVATIONS_INT8,     // a scale for all tokens of a sequence
    NYB_ACTIVATIONS_FLOAT8,
    NYB_ACTIVATIONS_INT8_PER_TOKEN,
    NYB_ACTIVATIONS_FLOAT8_PER_TOKEN,
    NYB_ACTIVATIONS_INT8_STATIC, // a scale that is in the checkpoint; for quantising alone
    NYB_ACTIVATIONS_FLOAT8_STATIC,
    NYB_ACTIVATIONS_COUNT
} nyb_activation_kind;

// "none", "int8", "float8", "int8-per-token", "float8-per-token", "int8-static",
// "float8-static". Never NULL.
NYB_API const char *nyb_activations_name(nyb_activation_kind activations);

// Returns false, and leaves *out alone, for any other word.
NYB_API bool nyb_activations_by_name(const char *name, nyb_activation_kind *out);

#endif // NYB_ACTIVATIONS_H_
