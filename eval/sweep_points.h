// sweep_points.h - from the grid and the list of a sweep to its points.
#ifndef NYB_EVAL_SWEEP_POINTS_H_
#define NYB_EVAL_SWEEP_POINTS_H_

#include "eval/sweep_spec.h"

// Fills spec->tasks. Errors as nyb_sweep_spec_open().
NYB_NODISCARD nyb_status nyb_sweep_points_make(nyb_sweep_spec *spec, const nyb_context *ctx,
                                               nyb_err *err);

// SHA-256 of a JSON value; false when there is no memory.
bool nyb_json_digest(const json_t *value, char text[NYB_HASH_TEXT]);

#endif // NYB_EVAL_SWEEP_POINTS_H_
