// AutoAWQ's gemm layout: four-bit codes packed across the outputs, eight to a word, in an order
// that suits the kernels it was made for.
//
//   qweight [cols, rows / 8]   I32  codes
//   qzeros  [groups, rows / 8] I32  zero points, packed likewise
//   scales  [groups, rows]     F16
//
// The nibble at bit 4 i of a word holds output 8 c + order[i].
#include <string.h>

#include "core/dtype.h"
#include "formats/layout_parts.h"

enum { QWEIGHT, QZEROS, SCALES, TENSORS, A_WORD = 8 };

static const char *const suffixes[TENSORS] = {"qweight", "qzeros", "scales"};
static const unsigned order[A_WORD] = {0, 2, 4, 6, 1, 3, 5, 7};

static nyb_status check(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const size_t group = spec->group_size;
    const nyb_status status = nyb_layout_check_spec(spec, module, err);
    if (status != NYB_OK)
        return status;
    if (spec->scale_dtype != NYB_F16)
        return nyb_fail(err, NYB_E_ARG, "'%s': awq stores scales as F16, not %s", module,
                        nyb_dtype_name(spec->scale_dtype));
    if (spec->kind != NYB_CODE_INT || spec->scale_rows || spec->bits != 4)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': awq holds whole numbers of 4 bits, it has %u-bit %s; use "
                        "--format compressed-tensors",
                        module, spec->bits, spec->kind == NYB_CODE_INT ? "ones" : "floats");
    if (spec->irregular)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': awq has no place for columns in an order of their own; use --format "
                        "gptq, or --activation-order group when quantising",
                        module);
    if (spec->rows % A_WORD != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': awq packs 8 output features at a time, it has %zu; use --format "
                        "compressed-tensors, or leave this layer out",
                        module, spec->rows);
    if (group != 0 && group != 32 && group != 64 && group != 128)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': readers of awq know the group sizes -1, 32, 64 and 128, not %zu",
                        module, group);
    if (group != 0 && spec->cols % group != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s': readers of awq want whole groups, and %zu columns are not a "
                        "multiple of %zu; choose another --group-size (-1: one per channel), or "
                        "leave this layer out",
                        module, spec->cols, group);
    return NYB_OK;
}

// The configuration has one group size for all.
static nyb_status check_run(const nyb_layout_run *run, nyb_err *err)
{
    const nyb_layout_module *first = NULL;
    for (size_t i = 0; i < run->count; i++) {
        const nyb_layout_module *const module = &run->modules[i];
        if (!module->quantized)
            continue;
        if (first && first->spec.group_size != module->spec.group_size)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s' has groups of %zu columns and '%s' of %zu (0: the whole row), "
                            "and awq has one group size for all layers; use --format "
                            "compressed-tensors, or gptq",
                            first->name, first->spec.group_size, module->name,
                            module->spec.group_size);
        first = first ? first : module;
    }
    return NYB_OK;
}

static nyb_status tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err)
{
    const size_t groups = nyb_layout_groups(spec);
    const nyb_layout_part parts[TENSORS] = {
        [QWEIGHT] = {suffixes[QWEIGHT], NYB_I32, {spec->cols, spec->rows / A_WORD}},
        [QZEROS] = {suffixes[QZEROS], NYB_I32, {groups, spec->rows / A_WORD}},
        [SCALES] = {suffixes[SCALES], NYB_F16, {groups, spec->rows}},
    };
    *count = TENSORS;
    return nyb_layout_describe_parts(out, parts, TENSORS, module, arena, err);
}

// values [rows, n] into words [n, rows / 8].
static void pack_across(unsigned char *words, const uint8_t *values, size_t rows, size_t n)
{
    for (size_t c = 0; c < rows / A_WORD; c++) {
        for (size_t k = 0; k < n; k++) {
            uint32_t word = 0;
            for (unsigned i = 0; i < A_WORD; i++)
                word |= (uint32_t) values[(c * A_WORD + order[i]) * n + k] << 4 * i;
            memcpy(words + (k * (rows / A_WORD) + c) * sizeof(word), &word, sizeof(word));
        }
    }
}

static void unpack_across(uint8_t *values, const unsigned char *words, size_t rows, size_t n)
{
    for (size_t c = 0; c < rows / A_WORD; c++) {
        for (size_t k = 0; k < n; k++) {
            uint32_t word;
            memcpy(&word, words + (k * (rows / A_WORD) + c) * sizeof(word), sizeof(word));
            for (unsigned i = 0; i < A_WORD; i++)
                values[(c * A_WORD + order[i]) * n + k] = (uint8_t) (word >> 4 * i & 15);
        }
    }
}

static nyb_status pack(const nyb_qweight *q, void *const buffers[], const char *module,
                       nyb_err *err)
{
    const nyb_status status = nyb_layout_check_values(q, 0, module, err);
    if (status != NYB_OK)
        return status;
    pack_across(buffers[QWEIGHT], q->codes, q->rows, q->cols);
    pack_across(buffers[QZEROS], q->zeros, q->rows, q->groups);
    nyb_layout_scales_down(buffers[SCALES], q);
    return NYB_OK;
}

// ---- Reading --------------------------------------------------------------------------------

// Looked at before anything is allocated, so that a shape that only the configuration claims
// takes no memory.
static nyb_status find_codes(const nyb_tensor **out, const nyb_layer *layer,
                             const nyb_layout_spec *spec)
{
    const nyb_status status = nyb_layer_get(out, layer, suffixes[QWEIGHT]);
    if (status != NYB_OK)
        return status;
    if (spec->bits != 4)
        return nyb_layer_fail(layer, *out, NYB_E_FORMAT, "has 4 bits, its settings want %u",
                              spec->bits);
    if (spec->rows % A_WORD != 0)
        return nyb_layer_fail(layer, *out, NYB_E_FORMAT,
                              "packs outputs in words of 8, the model wants %zu of them",
                              spec->rows);
    return nyb_layer_matrix(layer, *out, NYB_I32, spec->cols, spec->rows / A_WORD);
}

static nyb_status unpack_zeros(nyb_qweight *q, const nyb_layer *layer)
{
    const nyb_tensor *tensor = NULL;
    nyb_status status = nyb_layer_get(&tensor, layer, suffixes[QZEROS]);
    if (status == NYB_OK)
        status = nyb_layer_matrix(layer, tensor, NYB_I32, q->groups, q->rows / A_WORD);
    if (status != NYB_OK)
        return status;
    unpack_across(q->zeros, tensor->at, q->rows, q->groups);
    for (size_t k = 0; q->symmetric && k < q->rows * q->groups; k++) {
        if (q->zeros[k] != 8)
            return nyb_layer_fail(layer, tensor, NYB_E_FORMAT,
                                  "holds the zero point %u at row %zu, group %zu, and the "
                                  "configuration says that there are none (zero_point: false)",
                                  q->zeros[k], k / q->groups, k % q->groups);
    }
    return NYB_OK;
}

static nyb_status unpack_parts(nyb_qweight *q, const nyb_layer *layer)
{
    const nyb_tensor *scales = NULL;
    nyb_status status = unpack_zeros(q, layer);
    if (status == NYB_OK)
        status = nyb_layer_get(&scales, layer, suffixes[SCALES]);
    return status == NYB_OK ? nyb_layer_scales(q, layer, scales, true) : status;
}

static nyb_status unpack(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                         const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    const nyb_tensor *codes = NULL;
    *out = (nyb_qweight){0};
    nyb_status status = find_codes(&codes, &layer, spec);
    if (status == NYB_OK)
        status = nyb_layer_init(out, spec, err);
    if (status != NYB_OK)
        return status;
    unpack_across(out->codes, codes->at, out->rows, out->cols);
    return nyb_layer_end(out, unpack_parts(out, &layer));
}

// ---- Configuration --------------------------------------------------------------------------

static json_t *config(const nyb_layout_run *run)
{
    json_int_t group = -1;
    json_t *const plain = json_array();
    bool good = plain != NULL;
    for (size_t i = 0; i < run->count && good; i++) {
        const nyb_layout_module *const module = &run->modules[i];
        if (!module->quantized)
            good = json_array_append_new(plain, json_string(module->name)) == 0;
        else if (module->spec.group_size)
            group = (json_int_t) module->spec.group_size;
    }
    // Zero points are always there, so a symmetric layer's are, too.
    json_t *const document =
        good ? json_pack("{s:s, s:i, s:I, s:b, s:s, s:O}", "quant_method", "awq", "bits", 4,
                         "group_size", group, "zero_point", true, "version", "gemm",
                         "modules_to_not_convert", plain)
             : NULL;
    json_decref(plain);
    return document;
}

const nyb_layout nyb_layout_awq = {
    .name = "awq",
    .about = "AWQ's gemm layout, 4 bits: vLLM, transformers with GPTQModel, AutoAWQ",
    .marker = "qweight",
    .lowest_zero = 0,
    .scale_dtype = nyb_layout_f16,
    .check = check,
    .check_run = check_run,
    .tensors = tensors,
    .pack = pack,
    .unpack = unpack,
    .config = config,
};
