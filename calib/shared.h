// shared.h - what several runs over one model, one after the other, have to find out only once: what
// its files hold, which store of Hessians is sound, their factors, and what plain rounding loses.
//
// Results are the same bits as those of runs that share nothing. The model's files and the store must
// not change meanwhile.
#ifndef NYB_CALIB_SHARED_H_
#define NYB_CALIB_SHARED_H_

#include "calib/factor_cache.h"
#include "calib/hessian_store.h"
#include "nybble/quantize.h"

// What is known of a layer beside its solves.
typedef struct nyb_known_loss nyb_known_loss;

// Zeroed, nothing is known yet.
typedef struct nyb_shared {
    bool fleeting; // set by the caller: checkpoints are looked at once and removed, so they are
                   // neither synced nor read back
    json_t *files; // nyb_source_files() of the model
    // The store that was opened last, and what it was compared with.
    nyb_hessian_store store; // .file NULL: none
    bool all_experts;
    nyb_compute compute;
    nyb_factor_cache factors;
    nyb_known_loss **losses; // by layer of the model; NULL: none was measured yet
    nyb_arena arena;         // of losses
} nyb_shared;

void nyb_shared_close(nyb_shared *shared); // zeroed is fine

// As nyb_quantize(), for the model that `shared` is about. NULL: nothing is shared.
NYB_NODISCARD nyb_status nyb_quantize_shared(const nyb_context *ctx,
                                             const nyb_quantize_params *params, nyb_shared *shared,
                                             nyb_quantize_result *result, nyb_err *err);

// nyb_source_files() of the model, which the caller gives back by json_decref(). NULL when there is no
// memory.
json_t *nyb_shared_files(nyb_shared *shared, const nyb_context *ctx, const nyb_model *model);

// The store of this name, opened and found to be the model's. It stays the shared one's. What was known
// by another store is dropped. Errors as nyb_hessian_store_open_for().
NYB_NODISCARD nyb_status nyb_shared_store(nyb_shared *shared, const nyb_context *ctx,
                                          const nyb_model *model, const char *path,
                                          bool all_experts, nyb_hessian_store **out, nyb_err *err);

// A layer of the model, whose inputs' Hessian is at hand.
typedef struct nyb_shared_layer {
    const nyb_hessian *hessian;
    nyb_mat w;
    size_t index, count; // among the layers of all blocks, and how many these are
} nyb_shared_layer;

// Fills in what nyb_gptq_solve() leaves out with skip_measurements: rtn_loss, output_energy and
// relative_error. Errors as nyb_round_nearest() and nyb_hessian_loss().
NYB_NODISCARD nyb_status nyb_shared_measure(nyb_shared *shared, const nyb_context *ctx,
                                            const nyb_shared_layer *layer,
                                            const nyb_grid_params *grid, nyb_gptq_report *report,
                                            nyb_err *err);

#endif // NYB_CALIB_SHARED_H_
