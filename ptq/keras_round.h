// keras_round.h - rounding as Keras 3 does it, bit for bit: in the array's own type and orientation.
//
// nyb_round_nearest() gives the same codes for f32 weights; Keras' files hold the reciprocal of the
// scale, and for f16 weights every step is rounded to that type, for bf16 weights some are.
#ifndef NYB_PTQ_KERAS_ROUND_H_
#define NYB_PTQ_KERAS_ROUND_H_

#include "core/status.h"
#include "nybble/tensor.h"

// keras.quantizers.abs_max_quantize: w = q / s with s = top / (absmax + 1e-7) over the axes that
// are summed over.
//
//   w        f32, f16 or bf16
//   reduced  [w->rank] the axes that share a scale
//   bottom, top  the codes' range: -127 and 127, or -8 and 7
//   codes    out, as many as w has values, in w's order
//   scales   out, in w's type: one for each place of the other axes, in their order
//
// NYB_E_NUMERIC  a weight is NaN or infinite.
// NYB_E_NOMEM    no room for a row.
typedef struct nyb_keras_range {
    int bottom, top;
} nyb_keras_range;

NYB_NODISCARD nyb_status nyb_keras_round(const nyb_tensor *w, const bool *reduced,
                                         nyb_keras_range range, int8_t *codes, void *scales,
                                         nyb_err *err);

// keras.quantizers.abs_max_quantize_grouped_with_zero_point: w = (q - z) * s with q in [-8, 7].
//
//   w       [K, N], f32, f16 or bf16
//   axis    0: groups of `block` along K, scales and zeros [groups, N]; 1: along N, [K, groups]
//
// Errors as above.
typedef struct nyb_keras_groups {
    size_t block;
    unsigned axis;
} nyb_keras_groups;

NYB_NODISCARD nyb_status nyb_keras_round_groups(const nyb_tensor *w, nyb_keras_groups groups,
                                                int8_t *codes, void *scales, int8_t *zeros,
                                                nyb_err *err);

#endif // NYB_PTQ_KERAS_ROUND_H_
