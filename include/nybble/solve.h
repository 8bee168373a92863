// solve.h - one linear layer by any method: from matrices in memory, or from .npy files.
#ifndef NYB_SOLVE_H_
#define NYB_SOLVE_H_

#include "nybble/float8.h"
#include "nybble/gptq.h"

typedef enum nyb_method {
    NYB_METHOD_GPTQ = 0, // second-order rounding, needs a Hessian
    NYB_METHOD_RTN,      // plain rounding to the nearest point of the same grid
    NYB_METHOD_INT4,     // Keras' int4: one symmetric absmax scale a channel, or groups with zeros
    NYB_METHOD_INT8,     // Keras' int8: one symmetric absmax scale a channel
    NYB_METHOD_FLOAT8,   // 8-bit floats, symmetric from the largest weight
    NYB_METHOD_COUNT
} nyb_method;

// "gptq", "rtn", "int4", "int8", "float8". Never NULL.
NYB_API const char *nyb_method_name(nyb_method method);

// Returns false, and leaves *out alone, for any other word.
NYB_API bool nyb_method_by_name(const char *name, nyb_method *out);

// "group", "none", "full". Never NULL.
NYB_API const char *nyb_gptq_order_name(nyb_gptq_order order);
NYB_API bool nyb_gptq_order_by_name(const char *name, nyb_gptq_order *out);

typedef struct nyb_solve_params {
    nyb_method method;
    // rtn uses its grid; int8 only scale_dtype of that, int4 also lowest_zero and group_size.
    nyb_gptq_params gptq;
    nyb_float8_params float8; // scale_dtype is that of gptq's grid
} nyb_solve_params;

#define NYB_SOLVE_DEFAULTS                                                                         \
    ((nyb_solve_params){.gptq = NYB_GPTQ_DEFAULTS, .float8 = NYB_FLOAT8_DEFAULTS})

// Quantises w by the method that params names. What a method does not have stays 0 in the
// report, and its losses are NaN without a Hessian.
//
//   factor   for gptq: prepared from hessian (nyb_gptq_prepare); other methods: may be NULL
//   hessian  for the losses of the other methods; may be NULL. gptq uses the factor's
//   out      in: anything that owns nothing; out: freed by nyb_qweight_clear()
//   report   may be NULL
//
// Errors are those of nyb_gptq_solve() and nyb_round_nearest(); NYB_E_ARG when gptq has no
// factor. After an error out holds nothing.
typedef struct nyb_solve_input {
    const nyb_gptq_factor *factor;
    const nyb_hessian *hessian;
} nyb_solve_input;

NYB_API NYB_NODISCARD nyb_status nyb_solve_layer(const nyb_context *ctx, nyb_solve_input input,
                                                 nyb_mat w, const nyb_solve_params *params,
                                                 nyb_qweight *out, nyb_gptq_report *report,
                                                 nyb_err *err);

// Quantises a matrix as a file holds it by a method that needs no inputs: rtn, int4 or int8.
//
// Errors are those of nyb_round_stored(); NYB_E_ARG for another method. After an error out holds
// nothing.
NYB_API NYB_NODISCARD nyb_status nyb_solve_stored(const nyb_context *ctx, const nyb_tensor *w,
                                                  const nyb_solve_params *params, nyb_qweight *out,
                                                  nyb_gptq_report *report, nyb_err *err);

// A layer in files. Arrays are .npy of float32, float16 or float64, C order.
typedef struct nyb_solve_files {
    const char *weight;  // [out_features, in_features]
    const char *hessian; // [in_features, in_features]; NULL when inputs is given
    const char *inputs;  // [tokens, in_features]; NULL when hessian is given
    const char *output;  // folder to make
    bool force;          // replace an existing output folder
} nyb_solve_files;

// Quantises the layer and writes a folder: codes.npy uint8 [out, in] in the original order of
// columns, scales.npy float32 and zeros.npy uint8 [out, groups], g_idx.npy int32 [in], and
// report.json. The folder appears under its name only when complete.
//
// With params->gptq.grid.reference, H of given inputs is 2 X^T X, as in the reference for one
// sample.
//
// NYB_E_ARG     gptq without a Hessian or inputs, or with both, or a parameter out of range.
// NYB_E_SHAPE   the arrays do not fit each other.
// NYB_E_FORMAT  an array is not a .npy of a type above.
// NYB_E_EXISTS  output is there and force is not set.
// Others as in nyb_solve_layer(). After an error nothing is left under output's name.
NYB_API NYB_NODISCARD nyb_status nyb_solve_run(const nyb_context *ctx, const nyb_solve_files *files,
                                               const nyb_solve_params *params,
                                               nyb_gptq_report *report, nyb_err *err);

#endif // NYB_SOLVE_H_
