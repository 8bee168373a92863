// gguf_quantize.h - quantising into one GGUF file: plain rounding to its types, or GPTQ on the grid
// of one of them.
#ifndef NYB_CALIB_GGUF_QUANTIZE_H_
#define NYB_CALIB_GGUF_QUANTIZE_H_

#include "nybble/quantize.h"

// Whether params->format asks for a GGUF file ("gguf:Q4_0").
bool nyb_gguf_wanted(const nyb_quantize_params *params);

// Of such a format, the type that is asked for. NYB_E_ARG: there is none of this name.
NYB_NODISCARD nyb_status nyb_gguf_type_asked(nyb_dtype *out, const nyb_quantize_params *params,
                                             nyb_err *err);

// What the solve of params->format = "gguf:TYPE" by GPTQ is asked for: a folder beside the output
// whose layers the type holds without loss. Its `out` is NULL.
//
// NYB_E_ARG          settings that contradict the type.
// NYB_E_UNSUPPORTED  GPTQ does not solve on this type's grid.
NYB_NODISCARD nyb_status nyb_gguf_solve_params(nyb_quantize_params *out,
                                               const nyb_quantize_params *params, nyb_err *err);

// nyb_quantize() for a GGUF file.
NYB_NODISCARD nyb_status nyb_gguf_quantize(const nyb_context *ctx,
                                           const nyb_quantize_params *params,
                                           nyb_quantize_result *result, nyb_err *err);

#endif // NYB_CALIB_GGUF_QUANTIZE_H_
