// rope.h - rotary positions: their settings in config.json and their tables.
#ifndef NYB_MODEL_ROPE_H_
#define NYB_MODEL_ROPE_H_

#include "model/config.h"

// Reads rope_scaling, rope_parameters and rope_theta into out->rope.
NYB_NODISCARD nyb_status nyb_rope_config_read(nyb_model_config *out, const json_t *doc,
                                              const char *name, nyb_err *err);

// Angle by which pair `pair` in [0, head_dim / 2) turns from one position to the next.
float nyb_rope_frequency(const nyb_model_config *config, size_t pair);

// Writes the row of position p: head_dim / 2 cosines, then as many sines.
void nyb_rope_row(float *row, const float *frequencies, size_t half, size_t position);

#endif // NYB_MODEL_ROPE_H_
