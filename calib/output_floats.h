// output_floats.h - weights of an output that are written as floats.
#ifndef NYB_CALIB_OUTPUT_FLOATS_H_
#define NYB_CALIB_OUTPUT_FLOATS_H_

#include "calib/output_plan.h"

// The type of "bf16", "f16" or "f32"; false: none of them.
bool nyb_output_float_named(const char *name, nyb_dtype *out);

// The bytes of item->tensor, a whole weight: made from w [rows, cols] of item's layer, or from
// item->source. *bytes is freed by nyb_free(); NULL on an error.
//
// NYB_E_UNSUPPORTED  a value is too large for the type; err names it and the way out.
// NYB_E_NUMERIC      the source holds a NaN or an infinity.
NYB_NODISCARD nyb_status nyb_output_floats(void **bytes, const nyb_job *job,
                                           const nyb_output_item *item, nyb_mat w, nyb_err *err);
NYB_NODISCARD nyb_status nyb_output_cast(void **bytes, const nyb_output_item *item, nyb_err *err);

// The same for the weight as the source has it.
NYB_NODISCARD nyb_status nyb_output_dequantized(void **bytes, const nyb_job *job,
                                                const nyb_output_item *item, nyb_err *err);

#endif // NYB_CALIB_OUTPUT_FLOATS_H_
