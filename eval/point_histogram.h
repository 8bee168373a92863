// point_histogram.h - how the weights and scales of a checkpoint are spread.
#ifndef NYB_EVAL_POINT_HISTOGRAM_H_
#define NYB_EVAL_POINT_HISTOGRAM_H_

#include "core/json.h"
#include "model/model.h"

// [{"kind", "low", "high", "counts"}] of the float weights, for each kind of layer. Values lie in
// [low, high), and a power of two is the bound.
NYB_NODISCARD nyb_status nyb_histogram_weights(json_t **out, const nyb_model *model, nyb_err *err);

// One such histogram of log2 of all scales, "kind" "all"; *out is NULL when nothing has scales.
NYB_NODISCARD nyb_status nyb_histogram_scales(json_t **out, const nyb_model *model, nyb_err *err);

#endif // NYB_EVAL_POINT_HISTOGRAM_H_
