// stored.h - a block's linears multiplied in the form in which they lie: mapped floats, or codes that
// stay packed. The other form, f32 in memory of its own (nyb_block_weights.weights), is for those
// who change weights.
#ifndef NYB_MODEL_STORED_H_
#define NYB_MODEL_STORED_H_

#include "kernels/weight.h"
#include "model/model.h"

// What a nyb_block_weights holds instead of f32 matrices.
typedef struct nyb_stored {
    size_t count;             // linears of the loaded block
    nyb_weight *weights;      // [capacity]
    nyb_lowbit *codes;        // [capacity] what quantised ones borrow
    float **copies;           // [capacity] f32, where the file has blocks or rows in another order
    nyb_weight_input *inputs; // [capacity] of nyb_stored_input()
    void **memory;            // [capacity] behind inputs; NULL: shares that of an earlier linear
    size_t *shared;           // [capacity] the linear whose input this one reads
    size_t capacity;
} nyb_stored;

// NYB_E_NOMEM  no room; *out is NULL.
NYB_NODISCARD nyb_status nyb_stored_new(nyb_stored **out, const nyb_model *model, nyb_err *err);
void nyb_stored_free(nyb_stored *stored); // NULL is fine

// Bytes that the codes and copies of the model's largest block take at most. SIZE_MAX when they cannot be
// counted.
size_t nyb_stored_bytes(const nyb_model *model);

// Makes linear `index` of the block ready, whose floats are checked and whose codes are packed.
// Threads may load different linears.
//
// NYB_E_NUMERIC  a NaN or an infinity; err names the tensor and the position.
// Others as nyb_quantization_read().
NYB_NODISCARD nyb_status nyb_stored_load(nyb_stored *stored, const nyb_model *model, size_t block,
                                         size_t index, nyb_err *err);

// To be called after all of a block's linears were loaded: finds those that can share an input.
//
// NYB_E_NOMEM  no room for inputs.
NYB_NODISCARD nyb_status nyb_stored_finish(nyb_stored *stored, const nyb_model *model, size_t block,
                                           nyb_err *err);

// Makes the inputs of linears [first, first + count), which read x, for nyb_weight_multiply_one().
// x has to stay until the products are made.
void nyb_stored_input(const nyb_stored *stored, size_t first, size_t count, const float *x);

#endif // NYB_MODEL_STORED_H_
