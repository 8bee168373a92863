// keras_einsum.h - which axes of an EinsumDense's kernel share a scale, and how Keras stores the
// scales.
#ifndef NYB_FORMATS_KERAS_EINSUM_H_
#define NYB_FORMATS_KERAS_EINSUM_H_

#include "core/status.h"
#include "nybble/tensor.h"

typedef struct nyb_keras_einsum {
    unsigned kernel_rank;
    bool reduced[NYB_MAX_RANK]; // axes of the kernel that the product sums over
    // The scales, an array of the kernel's rank with 1 for the reduced axes, are stored with their
    // axes in another order and axes of 1 added or taken away.
    unsigned order[NYB_MAX_RANK];
    unsigned scale_rank;
    unsigned axis_of[NYB_MAX_RANK]; // kernel's axis of each of the stored axes; NYB_MAX_RANK: none
} nyb_keras_einsum;

// Reads "[X],[Y]->[Z]" with letters.
//
// NYB_E_FORMAT       not such an equation, or not one for a kernel of this rank, or an array of it
//                    has a letter twice.
// NYB_E_UNSUPPORTED  it has ..., which Keras itself fails on when the layer is quantised.
NYB_NODISCARD nyb_status nyb_keras_einsum_read(nyb_keras_einsum *out, const char *equation,
                                               unsigned kernel_rank, nyb_err *err);

// Puts scales, in the order of the kernel's axes, into the order in which they are stored, and sets
// the stored array's rank and shape.
//
//   scales  elements of `size` bytes
//   to      as many; `shape` gets rank, shape and at
void nyb_keras_einsum_store(const nyb_keras_einsum *einsum, const nyb_tensor *kernel,
                            const void *scales, size_t size, void *to, nyb_tensor *shape);

// How many of a kernel's axes, from the first on, are its inputs where Keras' GPTQ makes a matrix of
// it. Of three axes it takes the largest for the model's width, whatever the equation says: where that
// is the first, it leads from there, else to there. 0: it has no form for so many axes.
unsigned nyb_keras_gptq_inputs(unsigned rank, const size_t *shape);

#endif // NYB_FORMATS_KERAS_EINSUM_H_
