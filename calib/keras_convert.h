// keras_convert.h - a Hugging Face folder as a KerasHub preset.
#ifndef NYB_CALIB_KERAS_CONVERT_H_
#define NYB_CALIB_KERAS_CONVERT_H_

#include "nybble/convert.h"

// nyb_convert() for the format "keras": config.json, metadata.json and model.weights.h5 with the very
// numbers of the folder, in its type.
NYB_NODISCARD nyb_status nyb_keras_convert(const nyb_context *ctx, const nyb_convert_params *params,
                                           nyb_convert_result *result, nyb_err *err);

#endif // NYB_CALIB_KERAS_CONVERT_H_
