// output_plan.h - what a run's output consists of, tensor by tensor, and where each comes from.
#ifndef NYB_CALIB_OUTPUT_PLAN_H_
#define NYB_CALIB_OUTPUT_PLAN_H_

#include "calib/job.h"

// One tensor of the output.
typedef struct nyb_output_item {
    const nyb_tensor *tensor;   // name, type and shape that it will have
    const nyb_tensor *source;   // what it is copied from, or converted where types differ; or NULL:
    const nyb_job_layer *layer; // it is a part of this one
    bool in_memory;             // the source is not mapped
} nyb_output_item;

typedef struct nyb_output_plan {
    nyb_output_item *items; // [count] in the order of the source's names
    nyb_tensor *tensors;    // [count] items[i].tensor
    size_t count;
    const nyb_job_layer **layers; // [layer_count] with the head, sorted by name
    size_t layer_count;
} nyb_output_plan;

// Everything lies in the arena. NYB_E_NOMEM, or as nyb_layout.tensors().
NYB_NODISCARD nyb_status nyb_output_plan_make(nyb_output_plan *out, const nyb_job *job,
                                              nyb_arena *arena, nyb_err *err);

// Whether the layer's floats are written as [in, out].
bool nyb_output_turned(const nyb_job *job, const nyb_job_layer *layer);

// The layer of this name, NULL: none.
const nyb_job_layer *nyb_output_layer(const nyb_output_plan *plan, const char *module);

#endif // NYB_CALIB_OUTPUT_PLAN_H_
