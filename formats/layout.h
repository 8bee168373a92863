// layout.h - how a quantised linear layer lies in a checkpoint: which tensors, which bits, which
// configuration. Adding a layout is one file that defines a nyb_layout and one line in
// layouts[] (layout.c).
#ifndef NYB_FORMATS_LAYOUT_H_
#define NYB_FORMATS_LAYOUT_H_

#include "core/arena.h"
#include "core/json.h"
#include "formats/checkpoint.h"
#include "formats/store.h"
#include "nybble/activations.h"
#include "nybble/qweight.h"

enum { NYB_LAYOUT_TENSORS = 6 }; // at most, for one layer

// The shape of one quantised layer.
typedef struct nyb_layout_spec {
    size_t rows, cols;
    nyb_code_kind kind;
    nyb_dtype block; // ggml's type whose grid it is, NYB_F32: of none
    unsigned bits;
    size_t group_size; // columns, 0: one group per channel
    size_t scale_rows; // rows that share their scales, 0: one, SIZE_MAX: all
    bool symmetric;
    bool irregular; // columns of a group do not lie together (activation order full)
    nyb_dtype scale_dtype;
    nyb_activation_kind inputs; // what readers are to round the layer's input to
    bool input_scale;           // with a scale that is in the file
    nyb_dtype input_dtype;      // of that scale
    bool other_inputs; // of a configuration that was read: rounded, but to none of `inputs`
} nyb_layout_spec;

// One linear layer of the model, for the configuration.
typedef struct nyb_layout_module {
    const char *name; // "model.layers.0.self_attn.q_proj"
    bool outer;       // embedding or head, which readers look for by name
    bool embedding;
    bool quantized; // false: what follows is not read
    nyb_layout_spec spec;
    const struct nyb_layout *layout; // of those of the run's family; NULL: the run's own
} nyb_layout_module;

// What a configuration says about the whole run.
typedef struct nyb_layout_run {
    const nyb_layout_module *modules; // every linear layer in the model's order, lm_head too
    size_t count;                     // (also when it is tied), quantised or not
    double damp;                      // fraction of the mean diagonal, 0 when there is no Hessian
    bool true_sequential, static_groups, group_aware_order;
} nyb_layout_run;

typedef struct nyb_layout {
    const char *name;     // "gptq", "gptq_v2", "compressed-tensors", "awq"
    const char *about;    // one line for help
    bool quantize_config; // config() is also written as quantize_config.json
    bool transposed;      // readers also put it into layers whose weights are [in, out]

    const char *format; // its name inside a configuration that knows several; NULL: none
    const struct nyb_layout *bytes;  // where whole numbers are to have a byte each; NULL: here too
    const struct nyb_layout *floats; // where 8-bit floats are; NULL: nowhere
    bool outer;  // readers also look for it in the embedding and the output head
    bool inputs; // can say what inputs are rounded to, and hold their scale
    bool blocks; // 8-bit floats have scales of blocks unless others are asked for

    const char *marker; // "qweight": a layer is in this layout when it has such a tensor

    // The least zero point that every reader takes as it is: 1 for gptq v1, else 0.
    unsigned lowest_zero;

    // The type scales are stored in for a model of this dtype.
    nyb_dtype (*scale_dtype)(nyb_dtype model);

    // Whether the layout, and a reader of it, can hold such a layer.
    //
    // NYB_E_UNSUPPORTED  it cannot; err names the module, the reason and the way out.
    // NYB_E_ARG          the spec contradicts itself.
    nyb_status (*check)(const nyb_layout_spec *spec, const char *module, nyb_err *err);

    // Whether one configuration can describe all of these layers, each of which passed check().
    // NULL: always.
    //
    // NYB_E_UNSUPPORTED  it cannot; err names two modules, the reason and the way out.
    nyb_status (*check_run)(const nyb_layout_run *run, nyb_err *err);

    // Describes the tensors of a layer that passed check(): names in the arena, dtypes, shapes.
    // *count receives how many. NYB_E_NOMEM: no room.
    nyb_status (*tensors)(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err);

    // Fills buffers[i], of the length that tensors() gave for i, with the layer's bytes.
    //
    // NYB_E_UNSUPPORTED  a value that the layout cannot hold: a zero point below lowest_zero, a
    //                    code above 2^bits - 1, a scale that is not of scale_dtype.
    nyb_status (*pack)(const nyb_qweight *q, void *const buffers[], const char *module,
                       nyb_err *err);

    // Reads a layer; shapes, dtypes and ranges are checked. *out is owned by the caller
    // (nyb_qweight_clear()). spec->scale_dtype is not read: the file's own is taken. In
    // spec->irregular a reader says no more than that a group index is there to be read;
    // out->irregular tells whether it differs from the plain order.
    //
    // NYB_E_FORMAT       a tensor is missing or does not fit the spec, a scale is not finite and
    //                    positive, a group index is out of range, ...
    // NYB_E_UNSUPPORTED  a value that readers disagree about.
    // On an error *out is zeroed.
    nyb_status (*unpack)(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                         const nyb_layout_spec *spec, nyb_err *err);

    // The quantization_config object; NULL when there is no memory. The caller owns it.
    json_t *(*config)(const nyb_layout_run *run);
} nyb_layout;

// NULL when there is none of this name.
const nyb_layout *nyb_layout_by_name(const char *name);

// All layouts that hold whole numbers, for tests.
size_t nyb_layout_count(void);
const nyb_layout *nyb_layout_at(size_t index);

// All layouts that a user can ask for, for lists; NULL behind the last.
const nyb_layout *nyb_layout_writable_at(size_t index);

// ggml's blocks, for folders on their way into a GGUF file. Found by its name, but not in the list.
extern const nyb_layout nyb_layout_blocks;

// Row `row` of a weight on the grid of a block type as the type's blocks. False: there are none
// with these scales.
bool nyb_layout_join_row(void *out, const nyb_qweight *q, size_t row);

// What describes q, for check() and tensors().
nyb_layout_spec nyb_layout_spec_of(const nyb_qweight *q);

// Groups of one row.
static inline size_t nyb_layout_groups(const nyb_layout_spec *spec)
{
    return spec->group_size ? (spec->cols + spec->group_size - 1) / spec->group_size : 1;
}

// As layout->tensors(), with the scale of the layer's input where the spec has one.
NYB_NODISCARD nyb_status nyb_layout_tensors(const nyb_layout *layout,
                                            nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                                            const nyb_layout_spec *spec, const char *module,
                                            nyb_arena *arena, nyb_err *err);

// Bytes of those of them that the layer's matrix lies in (nyb_part_of_matrix()).
NYB_NODISCARD nyb_status nyb_layout_bytes(const nyb_layout *layout, const nyb_layout_spec *spec,
                                          size_t *bytes, nyb_err *err);

// Packs q and puts its tensors into the store.
NYB_NODISCARD nyb_status nyb_layout_put(const nyb_layout *layout, nyb_store *store,
                                        const char *module, const nyb_qweight *q, nyb_err *err);

#endif // NYB_FORMATS_LAYOUT_H_
