// axis.h - from numbers to places in a picture, and the round numbers that stand along an axis.
#ifndef NYB_EVAL_AXIS_H_
#define NYB_EVAL_AXIS_H_

#include <stdbool.h>
#include <stddef.h>

#include "eval/markup.h"

typedef struct nyb_axis {
    double low, high; // the numbers at its ends, low < high; > 0 on a log scale
    bool log;
    double from, to; // the places of low and high
} nyb_axis;

// Numbers that an axis has to show. Zero-initialised plus nyb_extent_start() it is empty.
typedef struct nyb_extent {
    double low, high; // low > high: none
} nyb_extent;

#define NYB_EXTENT_NONE ((nyb_extent){.low = 1e300, .high = -1e300})

// NaN is left out.
void nyb_extent_add(nyb_extent *extent, double value);
bool nyb_extent_is_empty(const nyb_extent *extent);

// An axis for these numbers, with a little room at both ends. `log` is taken where all are above
// 0 and their range is wide enough for it to help.
nyb_axis nyb_axis_of(const nyb_extent *extent, bool log, double from, double to);

double nyb_axis_place(const nyb_axis *axis, double value);

enum { NYB_TICKS_MAX = 24 };

typedef struct nyb_ticks {
    double at[NYB_TICKS_MAX];
    size_t count;
} nyb_ticks;

// About `wanted` round numbers inside the axis, in [3, 12].
nyb_ticks nyb_axis_ticks(const nyb_axis *axis, size_t wanted);

// A tick's number: as few digits as it has.
const char *nyb_tick_text(char out[NYB_NUMBER_TEXT], double value);

#endif // NYB_EVAL_AXIS_H_
