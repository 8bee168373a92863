// job.h - one quantisation run, settled before any work is done: the model, the settings of every
// layer, the layout, and the calibration tokens. Also what a layer's solve leaves behind.
#ifndef NYB_CALIB_JOB_H_
#define NYB_CALIB_JOB_H_

#include "calib/hessian_store.h"
#include "calib/recipe.h"
#include "calib/samples.h"
#include "calib/shared.h"
#include "core/hash.h"

// What becomes of a layer.
typedef enum nyb_form {
    NYB_FORM_COPY = 0, // it stays as it is in the source
    NYB_FORM_CODES,    // codes in `layout`, which the run puts into the output
    NYB_FORM_FLOATS,   // the weights of a quantised source as floats of `dtype`
    NYB_FORM_MADE,     // floats of `dtype`, which the run puts into the output
} nyb_form;

// One linear layer of a block, the embedding, or the head. A layer whose settings say so is not
// rounded.
typedef struct nyb_job_layer {
    const nyb_linear *linear;
    size_t block, index; // index among the block's linears; of embedding and head the number of
                         // blocks, 0
    nyb_settings settings;
    nyb_form form;
    const nyb_layout *layout; // of codes
    nyb_layout_spec spec;     // likewise
    float input_scale;        // 0 until nyb_job_observe(), or none is wanted
    nyb_dtype dtype;          // of floats
} nyb_job_layer;

// A tensor of the source, and what takes its place, of the same shape.
typedef struct nyb_replaced {
    const nyb_tensor *base, *with;
    bool in_memory; // `with` is not mapped
} nyb_replaced;

typedef struct nyb_job {
    const nyb_quantize_params *params;
    nyb_arena arena;
    nyb_model *model;
    const nyb_layout *layout; // NULL: the output has floats alone
    nyb_recipe recipe;
    nyb_job_layer *layers; // [count + outer] block by block, in the blocks' own order; then
                           // embedding and head, where they do not stay as they are
    size_t count, outer;
    size_t rounded;               // layers that are not skipped
    bool unties;                  // embedding and head share a tensor no longer
    bool casts;                   // matrices that are copied become `dtype`
    bool unpacks;                 // the source is a GGUF file: a folder's files are made of it
    bool keeps_config;            // the source's configuration holds for the output
    const nyb_replaced *replaced; // [replaced_count] tensors of floats that are not copied
    size_t replaced_count;
    bool once;       // the run cannot be taken up after an interruption
    bool calibrated; // some layer needs a Hessian
    bool observed;   // some layer needs a scale of its input
    bool forward;    // Hessians are made in the run: tokens are taken along from layer to layer
    nyb_samples samples;
    nyb_hessian_store *hessians; // that layers are solved with instead; NULL: none
    nyb_shared *shared; // what other runs have found out, whose the store is then; NULL: nothing
    nyb_dtype dtype;    // of the model's linear weights, of the embedding where they are quantised
} nyb_job;

// Whether all files that the parameters name besides the model are there: said first, since it is
// often a slip, and what else is wrong may depend on them.
//
// NYB_E_IO  one is missing, or may not be read.
NYB_NODISCARD nyb_status nyb_job_inputs_found(const nyb_quantize_params *params, nyb_err *err);

// Opens the model, merges the settings, checks every layer against the layout, and reads the
// calibration tokens if some layer needs them. Errors as nyb_quantize(); out holds nothing then.
NYB_NODISCARD nyb_status nyb_job_open(const nyb_context *ctx, nyb_job *out,
                                      const nyb_quantize_params *params, nyb_err *err);
NYB_NODISCARD nyb_status nyb_job_open_shared(const nyb_context *ctx, nyb_job *out,
                                             const nyb_quantize_params *params, nyb_shared *shared,
                                             nyb_err *err);
void nyb_job_close(nyb_job *job); // zeroed is fine

// Runs the samples through the model where some layer needs a scale of its input, and sets those.
// Errors as nyb_observe().
NYB_NODISCARD nyb_status nyb_job_observe(const nyb_context *ctx, nyb_job *job, nyb_err *err);

// What the run's products are made of: nyb_calibration_compute(), or what the store of Hessians was
// made of.
nyb_compute nyb_job_compute(const nyb_context *ctx, const nyb_job *job);

// The layers of one block: *count of them from the pointer returned. Behind the last block are
// embedding and head, where they do not stay as they are.
const nyb_job_layer *nyb_job_block(const nyb_job *job, size_t block, size_t *count);

// The layer's place among those of all blocks.
size_t nyb_job_place(const nyb_job *job, const nyb_job_layer *layer);

// Blocks that a run commits: the model's, and one for embedding and head where they become codes.
size_t nyb_job_blocks(const nyb_job *job);

// Whether the layer's solver needs the Hessian of its input.
bool nyb_job_calibrates(const nyb_job_layer *layer);

// What the solver is asked for a layer with these settings. The group size is the layer's own, 0: a
// whole row.
nyb_solve_params nyb_settings_solve(const nyb_settings *settings, size_t group_size,
                                    nyb_dtype scale_dtype, unsigned lowest_zero);
nyb_solve_params nyb_job_solve(const nyb_job *job, const nyb_job_layer *layer);

// Checks a layer that is to become codes against its layout.
//
// NYB_E_UNSUPPORTED, NYB_E_ARG  as nyb_layout.check().
NYB_NODISCARD nyb_status nyb_job_check_layer(const nyb_job *job, const nyb_job_layer *layer,
                                             nyb_err *err);

// The layer with other bits and another group size (0: the whole row), checked as above.
NYB_NODISCARD nyb_status nyb_job_regroup(const nyb_job *job, const nyb_job_layer *layer,
                                         unsigned bits, size_t group_size, nyb_job_layer *out,
                                         nyb_err *err);

// Checks what the layers' settings are together.
NYB_NODISCARD nyb_status nyb_job_check_run(const nyb_job *job, nyb_err *err);

// The job's layout, or that of its formats which holds codes of this kind.
const nyb_layout *nyb_job_layout_of(const nyb_layout *layout, nyb_code_kind kind);

// The quantization_config object for this job; NULL when there is no memory.
json_t *nyb_job_quantization_config(const nyb_job *job);

// SHA-256 of all that a quantised weight consists of.
void nyb_job_hash(const nyb_qweight *q, char text[NYB_HASH_TEXT]);

#endif // NYB_CALIB_JOB_H_
