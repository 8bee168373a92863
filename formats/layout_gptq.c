// The tensors that AutoGPTQ introduced and GPTQModel, vLLM, transformers and llama.cpp's
// converter read: codes packed down the input axis, one column per output.
//
//   qweight [cols * bits / 32, rows]  I32   codes
//   qzeros  [groups, rows * bits / 32] I32  zero points; in version 1 each stored as z - 1
//   scales  [groups, rows]             F16
//   g_idx   [cols]                     I32  the group of each input column
#include <string.h>

#include "formats/layout_parts.h"
#include "kernels/pack.h"

#include "core/dtype.h"
#include "formats/safetensors.h"

enum { QWEIGHT, QZEROS, SCALES, G_IDX, TENSORS };

static const char *const suffixes[TENSORS] = {"qweight", "qzeros", "scales", "g_idx"};

// Group sizes that the readers' configuration classes take.
static bool is_known_group(size_t size)
{
    return size == 0 || (size >= 16 && size <= 1024 && (size & (size - 1)) == 0);
}

static nyb_status check(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const nyb_status status = nyb_layout_check_spec(spec, module, err);
    const size_t factor = spec->bits == 3 ? 32 : 32 / (spec->bits ? spec->bits : 32);
    if (status != NYB_OK)
        return status;
    if (spec->kind != NYB_CODE_INT || spec->scale_rows)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': gptq holds whole numbers with scales of each output, no 8-bit "
                        "floats; use --format compressed-tensors",
                        module);
    if (spec->scale_dtype != NYB_F16)
        return nyb_fail(err, NYB_E_ARG, "'%s': gptq stores scales as F16, not %s", module,
                        nyb_dtype_name(spec->scale_dtype));
    if (spec->rows % 32 != 0)
        return nyb_fail(
            err, NYB_E_UNSUPPORTED,
            "'%s': readers of gptq want output features in multiples of 32, it has %zu; "
            "use --format compressed-tensors, or leave this layer out",
            module, spec->rows);
    if (spec->cols % factor != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': gptq packs %zu input columns at a time, it has %zu; use --format "
                        "compressed-tensors, or leave this layer out",
                        module, factor, spec->cols);
    if (!is_known_group(spec->group_size))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': readers of gptq know the group sizes -1, 16, 32, 64, 128, 256, 512 "
                        "and 1024, not %zu",
                        module, spec->group_size);
    return NYB_OK;
}

static nyb_status tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err)
{
    const size_t groups = nyb_layout_groups(spec);
    const size_t down = nyb_pack_words(spec->cols, spec->bits);
    const size_t across = nyb_pack_words(spec->rows, spec->bits);
    const nyb_layout_part parts[TENSORS] = {
        [QWEIGHT] = {suffixes[QWEIGHT], NYB_I32, {down, spec->rows}},
        [QZEROS] = {suffixes[QZEROS], NYB_I32, {groups, across}},
        [SCALES] = {suffixes[SCALES], NYB_F16, {groups, spec->rows}},
        [G_IDX] = {suffixes[G_IDX], NYB_I32, {spec->cols, 0}},
    };
    *count = TENSORS;
    return nyb_layout_describe_parts(out, parts, TENSORS, module, arena, err);
}

// zeros [rows, groups] to qzeros, each less `offset`.
static nyb_status pack_zeros(unsigned char *out, const nyb_qweight *q, unsigned offset,
                             nyb_err *err)
{
    const size_t words = nyb_pack_words(q->rows, q->bits);
    uint8_t *const across = nyb_alloc_raw(q->groups, q->rows);
    if (!across)
        return nyb_no_memory(err, "zero points", q->groups, q->rows);

    nyb_transpose_u8(across, q->zeros, q->rows, q->groups);
    for (size_t k = 0; k < q->groups * q->rows; k++)
        across[k] = (uint8_t) (across[k] - offset);
    for (size_t g = 0; g < q->groups; g++)
        nyb_pack_row(out + g * words * 4, across + g * q->rows, q->rows, q->bits);
    nyb_free(across);
    return NYB_OK;
}

static nyb_status pack(const nyb_qweight *q, void *const buffers[], unsigned offset,
                       const char *module, nyb_err *err)
{
    nyb_status status = nyb_layout_check_values(q, offset, module, err);
    if (status == NYB_OK)
        status = pack_zeros(buffers[QZEROS], q, offset, err);
    if (status != NYB_OK)
        return status;

    nyb_pack_down(buffers[QWEIGHT], q->codes, q->rows, q->cols, q->bits);
    nyb_layout_scales_down(buffers[SCALES], q);
    for (size_t j = 0; j < q->cols; j++) {
        const int32_t group = (int32_t) q->group_of[j];
        memcpy((unsigned char *) buffers[G_IDX] + j * sizeof(group), &group, sizeof(group));
    }
    return NYB_OK;
}

static nyb_status pack_v1(const nyb_qweight *q, void *const buffers[], const char *module,
                          nyb_err *err)
{
    return pack(q, buffers, 1, module, err);
}

static nyb_status pack_v2(const nyb_qweight *q, void *const buffers[], const char *module,
                          nyb_err *err)
{
    return pack(q, buffers, 0, module, err);
}

// ---- Reading --------------------------------------------------------------------------------

// Files exist whose zero points are those of the other version: a symmetric one gives itself
// away, because its only zero point is off by one everywhere.
static nyb_status check_symmetric(const nyb_qweight *q, const nyb_layer *layer,
                                  const nyb_tensor *tensor, unsigned offset)
{
    const unsigned want = 1u << (q->bits - 1);
    const unsigned other = offset ? want + 1 : want - 1; // read from a file of the other version
    size_t strange = 0, swapped = 0;

    for (size_t k = 0; k < q->rows * q->groups; k++) {
        strange += q->zeros[k] != want;
        swapped += q->zeros[k] == other;
    }
    if (strange == 0)
        return NYB_OK;
    if (swapped == q->rows * q->groups)
        return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                              "holds the zero points of %s, but the configuration says %s: set "
                              "checkpoint_format to \"%s\" in config.json",
                              offset ? "gptq_v2" : "gptq", offset ? "gptq" : "gptq_v2",
                              offset ? "gptq_v2" : "gptq");
    return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                          "holds %zu zero points other than %u, but the configuration says "
                          "symmetric",
                          strange, want);
}

// Version 1 stores z - 1. The largest field is z = 2^bits to readers that add 1 and keep the
// carry, and z = 0 to those that drop it, so no reading is right.
static nyb_status add_offset(nyb_qweight *q, const nyb_layer *layer, const nyb_tensor *tensor)
{
    const unsigned top = (1u << q->bits) - 1;
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        if (q->zeros[k] == top)
            return nyb_layer_fail(layer, tensor, NYB_E_UNSUPPORTED,
                                  "stores the zero point %u for row %zu, group %zu, which means 0 "
                                  "to some readers and %u to others",
                                  top, k / q->groups, k % q->groups, top + 1);
        q->zeros[k]++;
    }
    return NYB_OK;
}

static nyb_status unpack_zeros(nyb_qweight *q, const nyb_layer *layer, unsigned offset)
{
    const nyb_tensor *tensor = NULL;
    const size_t words = nyb_pack_words(q->rows, q->bits);
    nyb_status status = nyb_layer_get(&tensor, layer, suffixes[QZEROS]);
    if (status == NYB_OK)
        status = nyb_layer_matrix(layer, tensor, NYB_I32, q->groups, words);
    if (status != NYB_OK)
        return status;

    uint8_t *const across = nyb_alloc_raw(q->groups, q->rows);
    if (!across)
        return nyb_no_memory(layer->err, "zero points", q->groups, q->rows);
    for (size_t g = 0; g < q->groups; g++)
        nyb_unpack_row(across + g * q->rows, (const unsigned char *) tensor->at + g * words * 4,
                       q->rows, q->bits);
    nyb_transpose_u8(q->zeros, across, q->groups, q->rows);
    nyb_free(across);

    if (offset)
        status = add_offset(q, layer, tensor);
    if (status == NYB_OK && q->symmetric)
        status = check_symmetric(q, layer, tensor, offset);
    return status;
}

// Looked at before anything is allocated, so that a shape that only the configuration claims
// takes no memory.
static nyb_status find_codes(const nyb_tensor **out, const nyb_layer *layer,
                             const nyb_layout_spec *spec)
{
    const nyb_status status = nyb_layer_get(out, layer, suffixes[QWEIGHT]);
    if (status != NYB_OK)
        return status;
    return nyb_layer_matrix(layer, *out, NYB_I32, nyb_pack_words(spec->cols, spec->bits),
                            spec->rows);
}

// Files without activation order may leave g_idx out.
static nyb_status unpack_groups(nyb_qweight *q, const nyb_layer *layer, bool needed)
{
    const nyb_tensor *tensor = NULL;
    const nyb_status status = nyb_layer_find(&tensor, layer, suffixes[G_IDX]);
    if (status != NYB_OK)
        return status;
    if (tensor)
        return nyb_layer_groups(q, layer, tensor);
    if (needed && q->groups > 1)
        return nyb_layer_fail(layer, NULL, NYB_E_FORMAT,
                              "has no tensor 'g_idx', which desc_act asks for");
    return NYB_OK;
}

static nyb_status unpack_parts(nyb_qweight *q, const nyb_layer *layer, unsigned offset,
                               bool irregular)
{
    const nyb_tensor *scales = NULL;
    nyb_status status = unpack_zeros(q, layer, offset);
    if (status == NYB_OK)
        status = nyb_layer_get(&scales, layer, suffixes[SCALES]);
    if (status == NYB_OK)
        status = nyb_layer_scales(q, layer, scales, true);
    if (status == NYB_OK)
        status = unpack_groups(q, layer, irregular);
    return status;
}

static nyb_status unpack(nyb_qweight *out, const nyb_layer *layer, const nyb_layout_spec *spec,
                         unsigned offset)
{
    const nyb_tensor *codes = NULL;
    *out = (nyb_qweight){0};
    nyb_status status = find_codes(&codes, layer, spec);
    if (status == NYB_OK)
        status = nyb_layer_init(out, spec, layer->err);
    if (status != NYB_OK)
        return status;
    nyb_unpack_down(out->codes, codes->at, out->rows, out->cols, out->bits);
    return nyb_layer_end(out, unpack_parts(out, layer, offset, spec->irregular));
}

static nyb_status unpack_v1(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                            const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    return unpack(out, &layer, spec, 1);
}

static nyb_status unpack_v2(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                            const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    return unpack(out, &layer, spec, 0);
}

const nyb_layout nyb_layout_gptq = {
    .name = "gptq",
    .about = "GPTQ version 1: vLLM, GPTQModel, transformers, llama.cpp's converter",
    .quantize_config = true,
    .transposed = true,
    .marker = "qweight",
    .lowest_zero = 1,
    .scale_dtype = nyb_layout_f16,
    .check = check,
    .tensors = tensors,
    .pack = pack_v1,
    .unpack = unpack_v1,
    .config = nyb_layout_gptq_config,
};

const nyb_layout nyb_layout_gptq_v2 = {
    .name = "gptq_v2",
    .about = "GPTQ version 2, every zero point: GPTQModel and transformers with it",
    .quantize_config = true,
    .transposed = true,
    .marker = "qweight",
    .lowest_zero = 0,
    .scale_dtype = nyb_layout_f16,
    .check = check,
    .tensors = tensors,
    .pack = pack_v2,
    .unpack = unpack_v2,
    .config = nyb_layout_gptq_v2_config,
};
