// ggml's blocks as they lie in a GGUF file, in a folder: between the solve of a GGUF file and the
// file itself. No other program reads it, so it is not among the formats that can be asked for.
//
//   blocks      [rows, bytes of a row]  U8
//   block_type  [1]                     I32  ggml's number of the type
#include <string.h>

#include "core/dtype.h"
#include "core/qweight.h"
#include "formats/gguf.h"
#include "formats/gguf_types.h"
#include "formats/layout_parts.h"
#include "formats/quantization_rules.h"
#include "kernels/blocks.h"

enum { BLOCKS, TYPE, TENSORS };

static const char *const suffixes[TENSORS] = {"blocks", "block_type"};

static nyb_dtype scale_dtype(nyb_dtype model)
{
    (void) model;
    return NYB_F32;
}

static nyb_status check(const nyb_layout_spec *spec, const char *module, nyb_err *err)
{
    const nyb_block_codec *const codec = nyb_block_codec_get(spec->block);
    if (!codec || !codec->join)
        return nyb_fail(err, NYB_E_ARG, "'%s': not on the grid of a block type", module);
    if (spec->cols % nyb_dtype_block(spec->block).values != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "'%s': %zu columns are no whole blocks of %s",
                        module, spec->cols, nyb_dtype_name(spec->block));
    return NYB_OK;
}

static size_t row_bytes(nyb_dtype block, size_t cols)
{
    return cols / nyb_dtype_block(block).values * nyb_dtype_block(block).bytes;
}

static nyb_status tensors(nyb_tensor out[NYB_LAYOUT_TENSORS], size_t *count,
                          const nyb_layout_spec *spec, const char *module, nyb_arena *arena,
                          nyb_err *err)
{
    const nyb_layout_part parts[TENSORS] = {
        {suffixes[0], NYB_U8, {spec->rows, row_bytes(spec->block, spec->cols)}},
        {suffixes[1], NYB_I32, {1, 0}},
    };
    *count = TENSORS;
    return nyb_layout_describe_parts(out, parts, TENSORS, module, arena, err);
}

// One row's parts between the file's blocks and q.
typedef struct row_parts {
    uint8_t *codes;
    float *steps, *mins;
} row_parts;

static row_parts parts_of(const nyb_qweight *q, size_t row)
{
    const size_t at = row * q->groups;
    return (row_parts){q->codes + row * q->cols, q->scales + at, q->mins ? q->mins + at : NULL};
}

bool nyb_layout_join_row(void *out, const nyb_qweight *q, size_t row)
{
    const nyb_block_codec *const codec = nyb_block_codec_get(q->block);
    const nyb_block_size size = nyb_dtype_block(q->block);
    const size_t parts = size.values / codec->part;
    const row_parts r = parts_of(q, row);
    bool good = true;
    for (size_t i = 0; i < q->cols / size.values && good; i++)
        good = codec->join((unsigned char *) out + i * size.bytes, r.codes + i * size.values,
                           r.steps + i * parts, r.mins ? r.mins + i * parts : NULL);
    return good;
}

static nyb_status pack(const nyb_qweight *q, void *const buffers[], const char *module,
                       nyb_err *err)
{
    const int32_t type = (int32_t) nyb_gguf_type_of(q->block);
    const size_t bytes = row_bytes(q->block, q->cols);
    memcpy(buffers[TYPE], &type, sizeof(type));
    for (size_t i = 0; i < q->rows; i++) {
        if (!nyb_layout_join_row((unsigned char *) buffers[BLOCKS] + i * bytes, q, i))
            return nyb_fail(err, NYB_E_UNSUPPORTED, "'%s': row %zu is no row of %s", module, i,
                            nyb_dtype_name(q->block));
    }
    return NYB_OK;
}

static nyb_status find_type(nyb_dtype *out, const nyb_layer *layer)
{
    const nyb_tensor *tensor = NULL;
    int32_t number = -1;
    const char *name = NULL;
    const nyb_status status = nyb_layer_get(&tensor, layer, suffixes[TYPE]);
    if (status != NYB_OK)
        return status;
    if (tensor->dtype == NYB_I32 && tensor->rank == 1 && tensor->shape[0] == 1)
        memcpy(&number, tensor->at, sizeof(number));
    const int dtype = number < 0 ? -1 : nyb_gguf_dtype_of((uint32_t) number, &name);
    const nyb_block_codec *const codec = dtype < 0 ? NULL : nyb_block_codec_get((nyb_dtype) dtype);
    if (!codec || !codec->split)
        return nyb_layer_fail(layer, tensor, NYB_E_FORMAT, "names no type of blocks");
    *out = (nyb_dtype) dtype;
    return NYB_OK;
}

static void split_rows(nyb_qweight *q, const nyb_block_codec *codec, const unsigned char *blocks)
{
    const nyb_block_size size = nyb_dtype_block(q->block);
    const size_t parts = size.values / codec->part;
    for (size_t i = 0; i < q->rows; i++) {
        const row_parts r = parts_of(q, i);
        for (size_t k = 0; k < q->cols / size.values; k++, blocks += size.bytes)
            codec->split(r.codes + k * size.values, r.steps + k * parts,
                         r.mins ? r.mins + k * parts : NULL, blocks);
    }
    memset(q->zeros, codec->zero, q->rows * q->groups);
}

static nyb_status unpack(nyb_qweight *out, const nyb_checkpoint *file, const char *module,
                         const nyb_layout_spec *spec, nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    const nyb_tensor *tensor = NULL;
    nyb_dtype block = NYB_F32;
    *out = (nyb_qweight){0};
    nyb_status status = find_type(&block, &layer);
    if (status == NYB_OK)
        status = nyb_layer_get(&tensor, &layer, suffixes[BLOCKS]);
    if (status == NYB_OK && spec->cols % nyb_dtype_block(block).values != 0)
        status = nyb_layer_fail(&layer, tensor, NYB_E_FORMAT, "is no matrix of whole blocks");
    if (status == NYB_OK)
        status = nyb_layer_matrix(&layer, tensor, NYB_U8, spec->rows, row_bytes(block, spec->cols));
    if (status != NYB_OK)
        return status;
    const nyb_block_codec *const codec = nyb_block_codec_get(block);
    if (!nyb_blocks_finite(codec, tensor->at, tensor->bytes / nyb_dtype_block(block).bytes))
        return nyb_layer_fail(&layer, tensor, NYB_E_FORMAT, "has a scale that is not finite");
    const nyb_qweight parts = {
        .group_size = codec->part, .bits = codec->bits, .symmetric = !codec->minima};
    status = nyb_qweight_init_block(out, spec->rows, spec->cols, block, &parts, err);
    if (status == NYB_OK)
        split_rows(out, codec, tensor->at);
    return status;
}

static json_t *config(const nyb_layout_run *run)
{
    (void) run;
    return json_pack("{s:s}", "quant_method", nyb_layout_blocks.name);
}

nyb_status nyb_rules_of_blocks(nyb_quantization *q, const json_t *document, nyb_err *err)
{
    (void) document;
    return nyb_rules_add(q, NYB_RULE_ALL, "", (nyb_quantized){.layout = &nyb_layout_blocks}, err);
}

const nyb_layout nyb_layout_blocks = {
    .name = "nybble-blocks",
    .about = "blocks on their way into a GGUF file",
    .transposed = true,
    .marker = "blocks",
    .scale_dtype = scale_dtype,
    .check = check,
    .tensors = tensors,
    .pack = pack,
    .unpack = unpack,
    .config = config,
};
