// keras_save.h - writing a Keras checkpoint in which some layers are quantised.
#ifndef NYB_FORMATS_KERAS_SAVE_H_
#define NYB_FORMATS_KERAS_SAVE_H_

#include "formats/keras_layers.h"
#include "nybble/qweight.h"

// What takes a layer's place: all its arrays, in the order in which Keras stores them for the
// policy, and what config.json says.
typedef struct nyb_keras_edit {
    const nyb_keras_layer *layer;
    const char *mode;            // of the dtype policy: "int8", "int4/-1", "gptq/4/128", "float8"
    json_t *quantization;        // config.json's quantization_config; borrowed
    const nyb_tensor *variables; // [count]; names are not looked at
    size_t count;
    const nyb_tensor *bias; // one of `variables`, NULL: none
} nyb_keras_edit;

// Bytes that take the place of the layer's matrices: all but the bias.
size_t nyb_keras_edit_bytes(const nyb_keras_edit *edit);

// Gives the edit of a layer when it is its turn, in the file's order. Leave out->mode NULL to keep
// the layer as it is. Memory from the arena lasts until the layer is written.
typedef nyb_status (*nyb_keras_edit_fn)(void *user, const nyb_keras_layer *layer, nyb_arena *arena,
                                        nyb_keras_edit *out, nyb_err *err);

// Called when all is written but its name: `partial` is the file or folder, with `bytes` of arrays.
typedef nyb_status (*nyb_keras_ready_fn)(void *user, const char *partial, size_t bytes,
                                         nyb_err *err);

// Where a checkpoint goes, and what is done to it on the way.
typedef struct nyb_keras_target {
    const char *path;
    bool force; // replace what is there
    nyb_keras_edit_fn edit;
    nyb_keras_ready_fn ready;
    void *user; // of both
} nyb_keras_target;

// Writes the checkpoint to target->path, of the source's kind, with the edits made; all else is
// copied. The output appears under its name only when complete.
//
// NYB_E_EXISTS  path is there and force is not set.
NYB_NODISCARD nyb_status nyb_keras_save(const nyb_keras_layers *layers, nyb_keras_file *source,
                                        const nyb_keras_target *target, nyb_err *err);

// The codes of one GPTQ layer, as the solver gives them, for Dense and EinsumDense:
// w = scales[n, g] * (codes[n, k] - zeros[n, g]) with g = group_of[k] is element (k, n) of the
// kernel, flattened to [K inputs, N outputs] as Keras flattens it.
//
//   q     [N, K] of 2, 3, 4 or 8 bits; symmetric or not
//   out   layer, mode and variables set (bias, codes, scales, zeros, g_idx); quantization is new
//         and the caller's to give back
//
// NYB_E_SHAPE        q is not the kernel's shape.
// NYB_E_UNSUPPORTED  Keras cannot hold the layer in this form; err says why.
NYB_NODISCARD nyb_status nyb_keras_edit_gptq(nyb_keras_file *file, const nyb_keras_layer *layer,
                                             const nyb_qweight *q, nyb_arena *arena,
                                             nyb_keras_edit *out, nyb_err *err);

#endif // NYB_FORMATS_KERAS_SAVE_H_
