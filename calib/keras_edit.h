// keras_edit.h - what one layer of a Keras checkpoint becomes by rounding.
#ifndef NYB_CALIB_KERAS_EDIT_H_
#define NYB_CALIB_KERAS_EDIT_H_

#include "formats/keras_save.h"
#include "nybble/quantize.h"

// Whether Keras quantises layers of this kind by this method.
bool nyb_keras_quantizes(const nyb_keras_layer *layer, nyb_method method);

// The layer's new arrays, in the arena, and its policy. `weights` and `bits` get the values that
// were rounded and the bits that they and their scales take.
typedef struct nyb_keras_sums {
    double weights, bits;
} nyb_keras_sums;

// NYB_E_UNSUPPORTED  the layer's arrays are not those of its class, or it has LoRA.
// NYB_E_NUMERIC      a weight is NaN or infinite.
NYB_NODISCARD nyb_status nyb_keras_edit_layer(nyb_keras_file *file, const nyb_keras_layer *layer,
                                              const nyb_settings *settings, nyb_arena *arena,
                                              nyb_keras_edit *out, nyb_keras_sums *sums,
                                              nyb_err *err);

#endif // NYB_CALIB_KERAS_EDIT_H_
