// gptq.h - second-order rounding of one linear layer.
//
// Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
//         Generative Pre-trained Transformers", arXiv:2210.17323, Algorithm 1. Departures: group
//         parameters see every update made so far, also inside a block; columns are by default
//         taken in a group-aware order; columns without input are dropped.
// Layout: row-major f32; rows = out_features, cols = in_features.
//
// The way of one input: nyb_hessian_init, nyb_hessian_add for each batch, nyb_gptq_prepare once,
// nyb_gptq_solve for each weight that has this input (q, k and v; gate and up). Results have the
// same bits for any number of threads.
#ifndef NYB_GPTQ_H_
#define NYB_GPTQ_H_

#include "nybble/grid.h"

// H = sum of x^T x over all tokens of a layer's input, [n, n]. Only j >= i is kept up to date.
typedef struct nyb_hessian {
    nyb_mat h;
    size_t tokens;
    void *scratch; // of nyb_hessian_add(), kept for the next call
    size_t scratch_bytes;
    float *kept; // the memory of a sum that was emptied
    size_t room; // floats that h.at or `kept` has
} nyb_hessian;

enum {
    NYB_HESSIAN_CHUNK = 512,  // H takes sums over this many tokens at most
    NYB_HESSIAN_SLICE = 2048, // tokens that are worked on at once
};

// A zeroed n x n sum. NYB_E_NOMEM: out holds nothing.
NYB_API NYB_NODISCARD nyb_status nyb_hessian_init(nyb_hessian *out, size_t n, nyb_err *err);

// As nyb_hessian_init() of one that is zeroed or was used before, whose memory is taken where it is
// large enough: fresh memory costs more than clearing it.
NYB_API NYB_NODISCARD nyb_status nyb_hessian_renew(nyb_hessian *hessian, size_t n, nyb_err *err);

// Ends the sum, h.at is NULL then, and keeps its memory for nyb_hessian_renew().
NYB_API void nyb_hessian_empty(nyb_hessian *hessian);

// Frees the sum and zeroes it. A zeroed one is fine.
NYB_API void nyb_hessian_clear(nyb_hessian *hessian);

// Adds x^T x, with the elements of x rounded to bf16 first when ctx->compute says so. Batches that
// are multiples of NYB_HESSIAN_CHUNK long give the same bits as one long batch. A NaN or infinity
// in x is reported by nyb_gptq_prepare().
//
//   x  [tokens, n]  activations
//
// NYB_E_SHAPE  x does not have n columns; nothing was added.
// NYB_E_NOMEM  no room for nyb_hessian_scratch() bytes; nothing was added.
NYB_API NYB_NODISCARD nyb_status nyb_hessian_add(const nyb_context *ctx, nyb_hessian *hessian,
                                                 nyb_mat x, nyb_err *err);

// As nyb_hessian_add(), to the same bits, and adds x^T d to cross, rounded likewise.
//
//   x, d   [tokens, n]
//   cross  [n, n]
//
// NYB_E_SHAPE  they do not fit each other; nothing was added.
// NYB_E_NOMEM  no room for twice nyb_hessian_scratch() bytes; nothing was added.
NYB_API NYB_NODISCARD nyb_status nyb_hessian_add_cross(const nyb_context *ctx, nyb_hessian *hessian,
                                                       nyb_mat x, nyb_mat cross, nyb_mat d,
                                                       nyb_err *err);

// Bytes that nyb_hessian_add() allocates for the sum over batches of up to `tokens`.
NYB_API size_t nyb_hessian_scratch(const nyb_context *ctx, size_t n, size_t tokens);

// tr(D H D^T) with D = w - q: the squared error of the layer's output, summed over the tokens of
// H. f32 products, f64 sums.
//
//   w  [rows, n]
//   q  what w became; NULL for D = w
//
// NYB_E_SHAPE    the three do not fit each other.
// NYB_E_NUMERIC  a weight is NaN or infinite, or the sum is; err names the place.
// NYB_E_NOMEM    no room for nyb_hessian_loss_bytes() bytes.
// On an error *loss is left alone.
NYB_API NYB_NODISCARD nyb_status nyb_hessian_loss(const nyb_context *ctx,
                                                  const nyb_hessian *hessian, nyb_mat w,
                                                  const nyb_qweight *q, double *loss, nyb_err *err);

// What losses are held against: `loss`, that of q, and `energy`, tr(W H W^T), in one pass; either may
// be NULL. Products are made of what ctx->compute says, as the Hessian's own. In bf16, those of
// different columns are of elements rounded to it, and what they add up to is off by up to 2^-8 of the
// sum of the terms' magnitudes; by far less where roundings cancel (1e-3 of the whole in the worst
// layer measured). Errors as for nyb_hessian_loss().
NYB_API NYB_NODISCARD nyb_status nyb_hessian_yardsticks(const nyb_context *ctx,
                                                        const nyb_hessian *hessian, nyb_mat w,
                                                        const nyb_qweight *q, double *loss,
                                                        double *energy, nyb_err *err);

// Bytes that either of the two allocates: about half a Hessian, and some rows for each thread.
NYB_API size_t nyb_hessian_loss_bytes(const nyb_context *ctx, size_t n);

typedef enum nyb_gptq_order {
    // Columns by falling diag(H) inside each group, groups by their falling sum of diag(H):
    // nearly the accuracy of NYB_ORDER_FULL, and the file's groups stay in place.
    NYB_ORDER_GROUP = 0,
    NYB_ORDER_NONE, // as they lie
    // Columns by falling diag(H) ("activation order", desc_act). Groups are taken in that order,
    // so that the file needs g_idx, unless static_groups is set.
    NYB_ORDER_FULL,
} nyb_gptq_order;

typedef struct nyb_gptq_params {
    nyb_grid_params grid; // kind has to be NYB_GRID_MINMAX
    nyb_gptq_order order;
    bool static_groups;     // group parameters from the weights before the first update
    double damping;         // lambda as a fraction of mean(diag H), (0, damping_limit]
    double damping_growth;  // > 1: damping is multiplied by it when H + lambda I is not definite
    double damping_limit;   // no damping above this is tried
    size_t block_cols;      // columns solved before their errors reach the columns behind, >= 1
    unsigned refine;        // at most so many rounds of refinement, [0, NYB_REFINE_MOST]
    nyb_mat target;         // [rows, cols] what is rounded in w's place, see nyb_gptq_target(); .at
                            // NULL: w itself
    bool skip_measurements; // leave rtn_loss and output_energy out: saves half of the solve's time
} nyb_gptq_params;

enum {
    NYB_GPTQ_REFINE = 1,   // rounds of refinement unless told otherwise
    NYB_REFINE_MOST = 100, // that may be asked for
};

#define NYB_GPTQ_DEFAULTS                                                                          \
    ((nyb_gptq_params){.grid = NYB_GRID_DEFAULTS,                                                  \
                       .damping = 0.01,                                                            \
                       .damping_growth = 2.0,                                                      \
                       .damping_limit = 1.0,                                                       \
                       .block_cols = 128,                                                          \
                       .refine = NYB_GPTQ_REFINE})

// What solving needs to know of an input: U upper triangular with inv(P (H + lambda I) P^T) =
// U^T U, for the order P of the columns. A type of its own, so that a raw Hessian cannot be
// handed to the solver. Fields are for reading.
typedef struct nyb_gptq_factor {
    nyb_mat u;         // [n, n], owned; the strict lower triangle is undefined
    uint32_t *columns; // [n] columns[p] is the original column solved at p-th place
    uint8_t *dead;     // [n] 1 where the original column never had an input
    size_t dead_columns;
    double damping;             // the fraction that worked
    double lambda;              // what was added to the diagonal
    unsigned attempts;          // factorisations tried, 1 when the first worked
    double seconds;             // wall time of nyb_gptq_prepare()
    nyb_gptq_order order;       // what it was made for
    size_t group_size;          // likewise
    size_t tokens;              // that H was summed over
    const nyb_hessian *hessian; // borrowed for the report's losses; NULL if taken over
} nyb_gptq_factor;

// Orders, damps and factors a Hessian, which is only read and has to outlive the factor. Takes
// one n x n matrix.
//
// Dead columns (diag(H) = 0) take no part: lambda is relative to the mean of the others, and
// the solver sets their weights to 0.
//
// NYB_E_ARG      a parameter is outside its range.
// NYB_E_NUMERIC  H holds a NaN or an infinity, or a negative diagonal; err names the column.
// NYB_E_NOT_PD   not definite even with damping_limit; err tells the dampings tried.
// NYB_E_NOMEM    no room.
// After an error out holds nothing.
NYB_API NYB_NODISCARD nyb_status nyb_gptq_prepare(const nyb_context *ctx, nyb_gptq_factor *out,
                                                  const nyb_hessian *hessian,
                                                  const nyb_gptq_params *params, nyb_err *err);

// The same in the Hessian's own memory, for layers whose Hessian fits only once: the factor takes
// it over and *hessian is left zeroed, also after an error. Reports then derive loss from the
// factor and skip the measurements.
NYB_API NYB_NODISCARD nyb_status nyb_gptq_prepare_in_place(const nyb_context *ctx,
                                                           nyb_gptq_factor *out,
                                                           nyb_hessian *hessian,
                                                           const nyb_gptq_params *params,
                                                           nyb_err *err);

// Frees the factor and zeroes it. A zeroed one is fine.
NYB_API void nyb_gptq_factor_clear(nyb_gptq_factor *factor);

// What became of one weight. Losses are tr(D H D^T), in squared units of the layer's output
// summed over tokens, without damping.
typedef struct nyb_gptq_report {
    double loss;           // of the result
    double pass_loss;      // before refinement; the same without it; NaN with a target
    double rtn_loss;       // of plain rounding with the same grid parameters; NaN if skipped;
    double output_energy;  // tr(W H W^T); NaN if skipped; both as nyb_hessian_yardsticks() says
    double relative_error; // loss / output_energy, 0 when there is no output; NaN if skipped
    double solver_loss;    // tr(D (H + lambda I) D^T) as the solver sums it up
    double damping;        // as in the factor
    unsigned attempts;
    size_t dead_columns;
    size_t tokens;
    double seconds;        // wall time of the solve, measurements and refinement included
    double refine_seconds; // of these, refinement's
} nyb_gptq_report;

// What w has to become for its products with the inputs x of the factor's Hessian to come as near as
// they can to w's products with other inputs y of the same tokens, those that the layer has in the
// unrounded model:
//
//     out = w + strength w C^T inv(H + lambda I),  C = sum of x^T (y - x)
//
// the minimum of |out x - w y|^2 + lambda |out - w|^2 for strength 1. Source: Li et al., "GPTAQ:
// Efficient Finetuning-Free Quantization for Asymmetric Calibration", arXiv:2504.02692, equation 6,
// and Zhang et al., "Qronos", arXiv:2505.11695, whose first step it is.
//
//   w      [rows, n]  read only
//   cross  [n, n]     C, by nyb_hessian_add_cross(); where it was summed over a part of H's tokens,
//                     strength has to make up for it
//   out    [rows, n]
//
// NYB_E_SHAPE  they do not fit each other.
// NYB_E_NOMEM  no room for nyb_gptq_target_bytes().
NYB_API NYB_NODISCARD nyb_status nyb_gptq_target(const nyb_context *ctx,
                                                 const nyb_gptq_factor *factor, nyb_mat w,
                                                 nyb_mat cross, double strength, nyb_mat out,
                                                 nyb_err *err);

// Bytes that nyb_gptq_target() allocates: about an n x n matrix and a quarter, and some rows for each
// thread.
NYB_API size_t nyb_gptq_target_bytes(const nyb_context *ctx, size_t n);

// Rounds w onto a grid, moving each column's rounding error into the columns still to come.
//
//   factor  of this weight's input, prepared with the same order and group size
//   w       [rows, cols]  read only
//   out     in: anything that owns nothing; out: allocated here, freed by nyb_qweight_clear()
//   report  out, may be NULL
//
// NYB_E_ARG      a parameter is outside its range or not what factor was prepared for.
// NYB_E_SHAPE    factor's order is not w's number of columns.
// NYB_E_NUMERIC  a weight is NaN or infinite, a scale too large for its type, or the updates
//                overflowed; err names the place.
// NYB_E_NOMEM    no room for the result and about (rows tile) x cols floats a thread.
// After an error out holds nothing and report is left alone.
NYB_API NYB_NODISCARD nyb_status nyb_gptq_solve(const nyb_context *ctx,
                                                const nyb_gptq_factor *factor, nyb_mat w,
                                                const nyb_gptq_params *params, nyb_qweight *out,
                                                nyb_gptq_report *report, nyb_err *err);

#endif // NYB_GPTQ_H_
