// range.h - from which magnitude on values are clipped, given how they are spread.
//
// Sources: percentile: as common for activations. mse: the least squared error of rounding. entropy:
// Szymon Migacz, "8-bit Inference with TensorRT", GTC 2017: the least divergence between the
// values' distribution and the clipped, rounded one's.
#ifndef NYB_RANGE_H_
#define NYB_RANGE_H_

#include <stdbool.h>

#include "nybble/status.h"

typedef enum nyb_range {
    NYB_RANGE_ABSMAX = 0, // nothing is clipped
    NYB_RANGE_PERCENTILE, // the magnitude that this many percent do not exceed
    NYB_RANGE_MSE,
    NYB_RANGE_ENTROPY,
    NYB_RANGE_COUNT
} nyb_range;

typedef struct nyb_range_params {
    nyb_range kind;
    double percentile; // (50, 100]; 0: 99.99
} nyb_range_params;

// "absmax", "percentile", "mse", "entropy". Never NULL.
NYB_API const char *nyb_range_name(nyb_range range);

// Returns false, and leaves *out alone, for any other word.
NYB_API bool nyb_range_by_name(const char *name, nyb_range *out);

#endif // NYB_RANGE_H_
