// keras_hub_quantize.h - GPTQ of a KerasHub preset, into a preset.
#ifndef NYB_CALIB_KERAS_HUB_QUANTIZE_H_
#define NYB_CALIB_KERAS_HUB_QUANTIZE_H_

#include "nybble/quantize.h"

// Whether nyb_quantize() is asked for GPTQ of a preset that nybble runs. What cannot be read is left
// to those who read it next.
bool nyb_hub_gptq_wanted(const nyb_quantize_params *params);

// Solves the model as the folder that it would be, in "<out>.solve", which is removed in the end, and
// writes the very codes into the preset's arrays. Recipes name the folder's modules.
//
// NYB_E_UNSUPPORTED  a layer that is asked for has no form in Keras' GPTQ; err names it.
// Others as nyb_quantize().
NYB_NODISCARD nyb_status nyb_hub_gptq(const nyb_context *ctx, const nyb_quantize_params *params,
                                      nyb_quantize_result *result, nyb_err *err);

#endif // NYB_CALIB_KERAS_HUB_QUANTIZE_H_
