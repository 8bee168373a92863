// layout_parts.h - what the layouts share: finding and checking a layer's tensors, scales, and
// checks of what is to be packed.
#ifndef NYB_FORMATS_LAYOUT_PARTS_H_
#define NYB_FORMATS_LAYOUT_PARTS_H_

#include "formats/layout.h"

extern const nyb_layout nyb_layout_gptq, nyb_layout_gptq_v2, nyb_layout_compressed_tensors,
    nyb_layout_awq, nyb_layout_fp8;

// compressed-tensors has further formats, which share its configuration.
extern const nyb_layout nyb_layout_int_quantized, nyb_layout_float_quantized;

// What a group's "input_activations" say, into out->inputs and out->other_inputs.
void nyb_layout_read_inputs(nyb_layout_spec *out, const json_t *scheme);
json_t *nyb_layout_compressed_config(const nyb_layout_run *run);

// The quantization_config of each GPTQ version.
json_t *nyb_layout_gptq_config(const nyb_layout_run *run);
json_t *nyb_layout_gptq_v2_config(const nyb_layout_run *run);

// The layer being read.
typedef struct nyb_layer {
    const nyb_checkpoint *file;
    const char *module;
    nyb_err *err;
} nyb_layer;

// One line that names the file of `tensor` (or the checkpoint) and the layer.
__attribute__((format(printf, 4, 5))) nyb_status nyb_layer_fail(const nyb_layer *layer,
                                                                const nyb_tensor *tensor,
                                                                nyb_status status,
                                                                const char *format, ...);

// The tensor "<module>.<suffix>", or NULL without an error when it is not there.
NYB_NODISCARD nyb_status nyb_layer_find(const nyb_tensor **out, const nyb_layer *layer,
                                        const char *suffix);

// As nyb_layer_find(), but it has to be there.
NYB_NODISCARD nyb_status nyb_layer_get(const nyb_tensor **out, const nyb_layer *layer,
                                       const char *suffix);

// It is a matrix of this type and shape.
NYB_NODISCARD nyb_status nyb_layer_matrix(const nyb_layer *layer, const nyb_tensor *tensor,
                                          nyb_dtype dtype, size_t rows, size_t cols);

// How reading a layer ends: with an error, what was read of it is given back.
nyb_status nyb_layer_end(nyb_qweight *q, nyb_status status);

// Allocates a layer of this spec, whose group may be larger than the row: then it is one group.
NYB_NODISCARD nyb_status nyb_layer_init(nyb_qweight *out, const nyb_layout_spec *spec,
                                        nyb_err *err);

// Reads q->scales from a matrix, [rows, groups], or [groups, rows] when `down`, of f16, bf16 or
// f32, and sets q->scale_dtype. Each has to be finite and above 0.
NYB_NODISCARD nyb_status nyb_layer_scales(nyb_qweight *q, const nyb_layer *layer,
                                          const nyb_tensor *tensor, bool down);

// Reads q->zeros from I8 [rows, groups]: signed, 0 for the middle code.
NYB_NODISCARD nyb_status nyb_layer_signed_zeros(nyb_qweight *q, const nyb_layer *layer,
                                                const nyb_tensor *tensor);

// Reads q->group_of from an I32 vector and sets q->irregular. Each has to be below q->groups.
NYB_NODISCARD nyb_status nyb_layer_groups(nyb_qweight *q, const nyb_layer *layer,
                                          const nyb_tensor *tensor);

// The types that layouts store scales in: the model's own, or f32 where that is no float; F16.
nyb_dtype nyb_layout_model_dtype(nyb_dtype model);
nyb_dtype nyb_layout_f16(nyb_dtype model);

// Writes q->scales as F16 [groups, rows].
void nyb_layout_scales_down(unsigned char *out, const nyb_qweight *q);

// Codes, zeros and scales are what q's bits, symmetry and scale_dtype promise.
NYB_NODISCARD nyb_status nyb_layout_check_values(const nyb_qweight *q, unsigned lowest_zero,
                                                 const char *module, nyb_err *err);

// Bits, shape and group size are in range: what holds for every layout.
NYB_NODISCARD nyb_status nyb_layout_check_spec(const nyb_layout_spec *spec, const char *module,
                                               nyb_err *err);

// Readers of compressed-tensors want whole groups, whose columns lie together.
NYB_NODISCARD nyb_status nyb_layout_check_whole_groups(const nyb_layout_spec *spec,
                                                       const char *module, nyb_err *err);

// A layer's tensors in a layout: "<module>.<suffix>" of this type and shape; rank 1 when shape[1] is 0.
typedef struct nyb_layout_part {
    const char *suffix;
    nyb_dtype dtype;
    size_t shape[2];
} nyb_layout_part;

// Describes a layer that is to be written.
NYB_NODISCARD nyb_status nyb_layout_describe_parts(nyb_tensor *out, const nyb_layout_part *parts,
                                                   size_t count, const char *module,
                                                   nyb_arena *arena, nyb_err *err);

// One tensor of such a layer; rank 1 when cols is 0.
NYB_NODISCARD nyb_status nyb_layout_describe(nyb_tensor *out, const char *module,
                                             const char *suffix, nyb_dtype dtype,
                                             const size_t shape[2], nyb_arena *arena, nyb_err *err);

// Whether a and b lie in a file alike, apart from their shape.
bool nyb_layout_same_settings(const nyb_layout_spec *a, const nyb_layout_spec *b);

#endif // NYB_FORMATS_LAYOUT_PARTS_H_
