// keras_quantize.h - Keras checkpoints rounded as Keras itself rounds them, or by GPTQ into Keras'
// own arrays.
#ifndef NYB_CALIB_KERAS_QUANTIZE_H_
#define NYB_CALIB_KERAS_QUANTIZE_H_

#include "nybble/quantize.h"

// nyb_quantize() for a Keras checkpoint. The methods are int8, int4 and float8, rtn in the arrays of
// gptq, and gptq where the model can be run (model/keras_graph.h).
NYB_NODISCARD nyb_status nyb_keras_quantize(const nyb_context *ctx,
                                            const nyb_quantize_params *params,
                                            nyb_quantize_result *result, nyb_err *err);

#endif // NYB_CALIB_KERAS_QUANTIZE_H_
