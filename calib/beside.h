// beside.h - the unrounded model, taken along beside the one that is being rounded, so that layers can
// aim at what it gives.
#ifndef NYB_CALIB_BESIDE_H_
#define NYB_CALIB_BESIDE_H_

#include "calib/job.h"
#include "calib/pass.h"

typedef struct nyb_beside {
    nyb_pass pass;
    nyb_samples samples; // that the pass is over
    nyb_mat cross;       // of the current stage's two inputs; .at NULL: none
    size_t tokens;       // that it was summed over
    double strength;
} nyb_beside;

// Opens the second pass, over those of the job's samples that its parameters say, and hangs it on the
// first. Both have to stay where they are. `params` are those of the first, whose chunks are whole
// numbers of nyb_beside_unit() unless there is only one.
//
// Errors as nyb_pass_open(); out holds nothing then.
NYB_NODISCARD nyb_status nyb_beside_open(nyb_beside *out, nyb_pass *main, const nyb_job *job,
                                         const nyb_pass_params *params, nyb_err *err);
void nyb_beside_close(nyb_beside *beside); // zeroed is fine

// Embeds the tokens, and takes them through the first `blocks` blocks.
NYB_NODISCARD nyb_status nyb_beside_start(nyb_beside *beside, size_t blocks, nyb_err *err);

// Makes `block` the one that nyb_pass_stage() takes tokens through.
//
// Errors as nyb_block_weights_load().
NYB_NODISCARD nyb_status nyb_beside_load(nyb_beside *beside, size_t block, nyb_err *err);

// A stage's sum of x^T (y - x): begun, and dropped.
NYB_NODISCARD nyb_status nyb_beside_begin(nyb_beside *beside, size_t width, nyb_err *err);
void nyb_beside_end(nyb_beside *beside);

// Adds to the sum, and x^T x to the Hessian, for rows that nyb_pass_stage() shows with what they are off
// by.
//
// Errors as nyb_hessian_add_cross().
NYB_NODISCARD nyb_status nyb_beside_add(nyb_beside *beside, nyb_hessian *hessian,
                                        const nyb_pass_rows *rows, nyb_err *err);

// What w aims at, in memory that the caller frees by nyb_free(out->at); .at NULL after an error.
//
// Errors as nyb_gptq_target().
NYB_NODISCARD nyb_status nyb_beside_target(const nyb_beside *beside, const nyb_gptq_factor *factor,
                                           nyb_mat w, nyb_mat *out, nyb_err *err);

// How many of the first `samples` samples the second pass has.
size_t nyb_beside_count(const nyb_job *job, size_t samples);

// Samples that a chunk of the first pass has a whole number of, or all. The second one's has a unit of
// activations for each.
size_t nyb_beside_unit(const nyb_job *job);

// As nyb_activations_fit() for both passes together.
size_t nyb_beside_fit(const nyb_context *ctx, const nyb_job *job, size_t bytes);

// Bytes that it holds beside its activations, on top of a run without it.
size_t nyb_beside_bytes(const nyb_context *ctx, const nyb_job *job);

#endif // NYB_CALIB_BESIDE_H_
