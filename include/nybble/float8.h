// float8.h - weights as 8-bit floats with a scale.
//
// A weight w becomes the float nearest to w / s, ties to even, no larger than the type's largest
// finite value; s = absmax / that value, over all weights that share it, rounded to the type that
// scales are stored in before any weight is rounded.
#ifndef NYB_FLOAT8_H_
#define NYB_FLOAT8_H_

#include "nybble/context.h"
#include "nybble/qweight.h"
#include "nybble/range.h"

// Which weights share a scale.
typedef enum nyb_scales {
    NYB_SCALES_DEFAULT = 0, // the usual ones of the file's layout; here: each output's
    NYB_SCALES_TENSOR,      // all
    NYB_SCALES_CHANNEL,     // those of an output
    NYB_SCALES_BLOCK,       // those of a block of 128 outputs and 128 inputs
} nyb_scales;

enum { NYB_FLOAT8_BLOCK = 128 };

typedef struct nyb_float8_params {
    nyb_code_kind kind; // NYB_CODE_E4M3 (up to 448) or NYB_CODE_E5M2 (up to 57344)
    nyb_scales scales;
    nyb_dtype scale_dtype;  // NYB_F32, NYB_F16 or NYB_BF16
    nyb_range_params range; // what absmax is taken for
} nyb_float8_params;

#define NYB_FLOAT8_DEFAULTS ((nyb_float8_params){.kind = NYB_CODE_E4M3, .scale_dtype = NYB_F32})

// "default", "tensor", "channel", "block". Never NULL.
NYB_API const char *nyb_scales_name(nyb_scales scales);
NYB_API bool nyb_scales_by_name(const char *name, nyb_scales *out);

// "int", "e4m3", "e5m2". Never NULL.
NYB_API const char *nyb_code_kind_name(nyb_code_kind kind);
NYB_API bool nyb_code_kind_by_name(const char *name, nyb_code_kind *out);

// Rounds every weight. Zeros that have a scale for themselves get 1.
//
//   out  in: anything that owns nothing; out: allocated here, freed by nyb_qweight_clear()
//   w    [rows, cols]  read only
//
// NYB_E_ARG      a parameter is outside its range.
// NYB_E_NUMERIC  a weight is NaN or infinite; err names the place.
// NYB_E_NOMEM    no room for the result.
// After an error out holds nothing.
NYB_API NYB_NODISCARD nyb_status nyb_round_float8(const nyb_context *ctx, nyb_qweight *out,
                                                  nyb_mat w, const nyb_float8_params *params,
                                                  nyb_err *err);

#endif // NYB_FLOAT8_H_
