// finish.h - what is left to do with a layer that has its codes.
#ifndef NYB_CALIB_FINISH_H_
#define NYB_CALIB_FINISH_H_

#include "calib/output.h"

typedef struct nyb_finishing {
    nyb_output *out;
    const nyb_job_layer *layer;
    const nyb_qweight *q;
    nyb_mat weight;           // what was rounded, left dequantised; without memory: the shape of
    const nyb_tensor *stored; // F32, F16 or BF16, which is left alone
} nyb_finishing;

// Writes the layer, hashes its codes, and measures |W - Q|^2 / |W|^2 (0 where W is 0), side by side.
// Results do not depend on the number of threads.
//
// Errors as nyb_output_put(); NYB_E_NOMEM.
NYB_NODISCARD nyb_status nyb_finish_layer(const nyb_context *ctx, const nyb_finishing *finishing,
                                          char sha256[NYB_HASH_TEXT], double *weight_error,
                                          nyb_err *err);

#endif // NYB_CALIB_FINISH_H_
