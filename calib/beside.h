// beside.h - the unrounded model, taken along beside the one that is being rounded, so that layers can
// aim at what it gives.
#ifndef NYB_CALIB_BESIDE_H_
#define NYB_CALIB_BESIDE_H_

#include "calib/job.h"
#include "calib/pass.h"

typedef struct nyb_beside {
    nyb_pass pass;
    nyb_mat cross; // of the current stage's two inputs; .at NULL: none
    double strength;
} nyb_beside;

// Opens the second pass and hangs it on the first. `main` has to stay where it is.
//
// Errors as nyb_pass_open(); out holds nothing then.
NYB_NODISCARD nyb_status nyb_beside_open(nyb_beside *out, nyb_pass *main, const nyb_job *job,
                                         const nyb_pass_params *params, nyb_err *err);
void nyb_beside_close(nyb_beside *beside); // zeroed is fine

// Embeds the tokens, and takes them through the first `blocks` blocks.
NYB_NODISCARD nyb_status nyb_beside_start(nyb_beside *beside, size_t blocks, nyb_err *err);

// A stage's sum of x^T (y - x): begun, added to when nyb_pass_stage() shows x, and dropped.
NYB_NODISCARD nyb_status nyb_beside_begin(nyb_beside *beside, size_t width, nyb_err *err);
void nyb_beside_add(nyb_beside *beside, nyb_mat x);
void nyb_beside_end(nyb_beside *beside);

// What w aims at, in memory that the caller frees by nyb_free(out->at); .at NULL after an error.
//
// Errors as nyb_gptq_target().
NYB_NODISCARD nyb_status nyb_beside_target(const nyb_beside *beside, const nyb_gptq_factor *factor,
                                           nyb_mat w, nyb_mat *out, nyb_err *err);

// Bytes that it holds beside its activations, on top of a run without it.
size_t nyb_beside_bytes(const nyb_context *ctx, const nyb_job *job);

#endif // NYB_CALIB_BESIDE_H_
