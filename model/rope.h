// rope.h - rotary positions: their settings in config.json and their tables.
#ifndef NYB_MODEL_ROPE_H_
#define NYB_MODEL_ROPE_H_

#include "model/config.h"

// Angles by which the pairs [0, rope->dims / 2) turn from one position to the next, for sequences
// of at most `length` positions: the dynamic kinds depend on it.
void nyb_rope_frequencies(float *frequencies, const nyb_rope_config *rope, size_t length);

// Writes the row of position p: `half` cosines, then as many sines, times the magnitude.
void nyb_rope_row(float *row, const float *frequencies, size_t half, size_t position,
                  float magnitude);

#endif // NYB_MODEL_ROPE_H_
