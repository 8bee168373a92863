// observe.h - how the inputs of every stage of a model are spread.
#ifndef NYB_CALIB_OBSERVE_H_
#define NYB_CALIB_OBSERVE_H_

#include "calib/samples.h"
#include "ptq/observer.h"

// Observers of a model's stages, block by block.
typedef struct nyb_observed {
    const nyb_model *model;
    size_t *first;        // [blocks + 1] the first stage of each block
    nyb_observer *stages; // [first[blocks]]
} nyb_observed;

// Runs the samples through the model, some thousand tokens at a time or what the ceiling of ctx has
// room for, with weights as they lie in the file. The same for any number of threads and any
// ceiling.
//
// NYB_E_NUMERIC  an input is NaN or infinite; err names the layer.
// NYB_E_NOMEM    no room, or none under the ceiling. Others as nyb_block_weights_load(). On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_observe(const nyb_context *ctx, nyb_observed *out, nyb_model *model,
                                     const nyb_samples *samples, nyb_err *err);
void nyb_observed_clear(nyb_observed *observed); // zeroed is fine

// What was seen of the input of a block's linear.
const nyb_observer *nyb_observed_of(const nyb_observed *observed, size_t block, size_t linear);

#endif // NYB_CALIB_OBSERVE_H_
