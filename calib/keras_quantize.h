// keras_quantize.h - Keras checkpoints rounded without samples, as Keras itself rounds them.
#ifndef NYB_CALIB_KERAS_QUANTIZE_H_
#define NYB_CALIB_KERAS_QUANTIZE_H_

#include "nybble/quantize.h"

// nyb_quantize() for a Keras checkpoint. The methods are int8, int4 and float8.
NYB_NODISCARD nyb_status nyb_keras_quantize(const nyb_context *ctx,
                                            const nyb_quantize_params *params,
                                            nyb_quantize_result *result, nyb_err *err);

#endif // NYB_CALIB_KERAS_QUANTIZE_H_
