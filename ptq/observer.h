// observer.h - how values are spread, in a histogram that takes them in any order and batches; and the
// range that this suggests. For weights and for activations.
//
// Bins are over magnitudes, and together reach up to the least power of two above the largest one.
// When it grows, neighbours merge, so that the counts depend on the values alone.
#ifndef NYB_PTQ_OBSERVER_H_
#define NYB_PTQ_OBSERVER_H_

#include <stddef.h>
#include <stdint.h>

#include "nybble/qweight.h"
#include "nybble/range.h"

enum { NYB_OBSERVER_BINS = 2048 };

// Zeroed it has seen nothing.
typedef struct nyb_observer {
    uint64_t count;
    float low, high; // smallest and largest value and 0
    int exponent;    // bins reach up to 2^exponent; of no meaning while low and high are 0
    uint64_t bins[NYB_OBSERVER_BINS];
} nyb_observer;

// Adds x[0], x[stride], ..., n values, all finite.
void nyb_observer_add(nyb_observer *o, const float *x, size_t n, size_t stride);

// Adds what another one has seen.
void nyb_observer_merge(nyb_observer *o, const nyb_observer *other);

// What values are rounded to once they are divided by range / top: whole numbers up to `top`, or
// floats of the kind, of which `top` is the largest.
typedef struct nyb_rounding_to {
    nyb_code_kind kind;
    float top;
} nyb_rounding_to;

// The magnitude to clip at, at most the largest one. 0 when everything is 0.
float nyb_observer_range(const nyb_observer *o, const nyb_range_params *params,
                         nyb_rounding_to rounding);

#endif // NYB_PTQ_OBSERVER_H_
