// pass.h - taking the calibration tokens through a model stage by stage, and looking at the input of
// each stage on the way.
#ifndef NYB_CALIB_PASS_H_
#define NYB_CALIB_PASS_H_

#include "calib/activations.h"
#include "calib/samples.h"

typedef struct nyb_pass {
    const nyb_context *ctx;
    const nyb_model *model;
    const nyb_samples *samples; // NULL: no tokens are carried along
    nyb_activations activations;
    nyb_block_weights weights;
    float *tile;    // [NYB_UNIT_TOKENS, widest input] for the caller too, between two calls
    size_t *routed; // [experts] tokens that the current block's router sent to each
    // Another pass that nyb_pass_stage() takes along, over every beside_step-th unit of the same samples, in
    // as many chunks. NULL: none.
    struct nyb_pass *beside;
    size_t beside_step;
} nyb_pass;

static const size_t nyb_no_stage = SIZE_MAX;

// How tokens are taken along.
typedef struct nyb_pass_params {
    const nyb_samples *samples; // outlive the pass; NULL: none, only weights are read
    size_t chunk_samples;       // nyb_activations_fit()
    nyb_dtype operands;         // nyb_batch.operands: NYB_F32 where inputs are looked at otherwise
                                // than by products
    const char *folder;         // for what memory has no room for
    bool stored;                // weights are multiplied as they lie, and nobody overwrites them
    bool all_experts;           // every expert reads all tokens
} nyb_pass_params;

// NYB_E_NOMEM  no room. Others as nyb_activations_open(). After an error out holds nothing.
NYB_NODISCARD nyb_status nyb_pass_open(nyb_pass *out, const nyb_context *ctx,
                                       const nyb_model *model, const nyb_pass_params *params,
                                       nyb_err *err);
void nyb_pass_close(nyb_pass *pass); // zeroed is fine

// Columns of the widest input of a linear layer.
size_t nyb_pass_width(const nyb_model *model);

// Some rows [at most NYB_UNIT_TOKENS, width] of a stage's input: those of tokens that count. The rows are
// cut by shape alone: into units of samples, and units into pieces.
typedef struct nyb_pass_rows {
    nyb_operand operand;
    nyb_mat x;   // the same as f32; .at NULL where they stay as bf16
    nyb_mat off; // what beside's rows differ by from these; .at NULL: they are not among its own
    bool again;  // of tokens that were shown before, times what makes them count for the rest of
                 // their weight
} nyb_pass_rows;

typedef nyb_status nyb_pass_use(void *arg, const nyb_pass_rows *rows, nyb_err *err);

// Embeds all tokens: what the first block begins with.
NYB_NODISCARD nyb_status nyb_pass_embed(nyb_pass *pass, nyb_err *err);

// Takes every chunk through the stage `run` of the block whose weights are loaded, and shows the
// inputs of the stage `next`, which may be the one behind `run` or the first of all. Either may be
// nyb_no_stage. Errors are those of `use` and of nyb_activations_load() and _save().
NYB_NODISCARD nyb_status nyb_pass_stage(nyb_pass *pass, size_t run, size_t next, nyb_pass_use *use,
                                        void *arg, nyb_err *err);

// Takes every chunk through the whole block whose weights are loaded.
NYB_NODISCARD nyb_status nyb_pass_block(nyb_pass *pass, nyb_err *err);

// What the products of a calibration are made of: ctx->compute; where that is NYB_COMPUTE_AUTO, bf16
// for models whose weights are bf16 on CPUs that have products of bf16, else f32.
nyb_compute nyb_calibration_compute(const nyb_context *ctx, nyb_dtype weights);

// The type of the model's first linear layer that is not quantised, else of its embedding.
nyb_dtype nyb_model_weight_dtype(const nyb_model *model);

#endif // NYB_CALIB_PASS_H_
