// keras_edit.h - what one layer of a Keras checkpoint becomes by rounding.
#ifndef NYB_CALIB_KERAS_EDIT_H_
#define NYB_CALIB_KERAS_EDIT_H_

#include "formats/keras_save.h"
#include "nybble/quantize.h"

// Whether Keras has layers of this kind that are quantised by this method; rtn is plain rounding in
// the form of its GPTQ.
bool nyb_keras_quantizes(const nyb_keras_layer *layer, nyb_method method);

// How many of such a layer's arrays, from the first on, are matrices that are rounded.
size_t nyb_keras_matrices(const nyb_keras_layer *layer);

typedef struct nyb_keras_run {
    const nyb_context *ctx;
    nyb_keras_file *file;
} nyb_keras_run;

// The layer's new arrays, in the arena, and its policy.
//
// NYB_E_UNSUPPORTED  the layer's arrays are not those of its class, or it has LoRA.
// NYB_E_NUMERIC      a weight is NaN or infinite.
NYB_NODISCARD nyb_status nyb_keras_edit_layer(nyb_keras_run run, const nyb_keras_layer *layer,
                                              const nyb_settings *settings, nyb_arena *arena,
                                              nyb_keras_edit *out, nyb_err *err);

// The kernel of a Dense or EinsumDense as a matrix [outputs, inputs], in the arena: its axes in
// their order, those that the product sums over first, which is how Keras' GPTQ lays it out.
//
// NYB_E_UNSUPPORTED  its other axes come first.
NYB_NODISCARD nyb_status nyb_keras_matrix(nyb_keras_file *file, const nyb_keras_layer *layer,
                                          nyb_arena *arena, nyb_mat *out, nyb_err *err);

#endif // NYB_CALIB_KERAS_EDIT_H_
