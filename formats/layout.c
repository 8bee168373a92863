#include "formats/layout.h"

#include <string.h>

#include "core/dtype.h"
#include "formats/layout_parts.h"

// In the order of help. The first is the default of commands that ask for none.
static const nyb_layout *const layouts[] = {
    &nyb_layout_compressed_tensors,
    &nyb_layout_gptq,
    &nyb_layout_gptq_v2,
    &nyb_layout_awq,
};

// Those that hold no whole numbers.
static const nyb_layout *const float_layouts[] = {&nyb_layout_fp8};

enum { LAYOUT_COUNT = sizeof(layouts) / sizeof(layouts[0]) };

// Every layout that a folder can be written in, those of one name together.
static const nyb_layout *const writable[] = {
    &nyb_layout_compressed_tensors,
    &nyb_layout_int_quantized,
    &nyb_layout_float_quantized,
    &nyb_layout_gptq,
    &nyb_layout_gptq_v2,
    &nyb_layout_awq,
    &nyb_layout_fp8,
};

const nyb_layout *nyb_layout_writable_at(size_t index)
{
    return index < sizeof(writable) / sizeof(writable[0]) ? writable[index] : NULL;
}

size_t nyb_layout_count(void)
{
    return LAYOUT_COUNT;
}

const nyb_layout *nyb_layout_at(size_t index)
{
    return layouts[index];
}

const nyb_layout *nyb_layout_by_name(const char *name)
{
    for (size_t i = 0; i < LAYOUT_COUNT; i++) {
        if (strcmp(layouts[i]->name, name) == 0)
            return layouts[i];
    }
    for (size_t i = 0; i < sizeof(float_layouts) / sizeof(float_layouts[0]); i++) {
        if (strcmp(float_layouts[i]->name, name) == 0)
            return float_layouts[i];
    }
    return strcmp(nyb_layout_blocks.name, name) == 0 ? &nyb_layout_blocks : NULL;
}

nyb_layout_spec nyb_layout_spec_of(const nyb_qweight *q)
{
    return (nyb_layout_spec){
        .rows = q->rows,
        .cols = q->cols,
        .kind = q->kind,
        .block = q->block,
        .bits = q->bits,
        .group_size = q->groups == 1 && q->group_size == q->cols ? 0 : q->group_size,
        .scale_rows = q->scale_rows > 1 ? q->scale_rows : 0,
        .symmetric = q->symmetric,
        .irregular = q->irregular,
        .scale_dtype = q->scale_dtype,
        .input_scale = q->input_scale > 0.0f,
        // What a file brings may have digits that the type of the weights' scales has not.
        .input_dtype = nyb_round_to(q->input_scale, q->scale_dtype) == q->input_scale
                           ? q->scale_dtype
                           : NYB_F32,
    };
}

nyb_status nyb_layout_tensors(const nyb_layout *layout, nyb_tensor out[NYB_LAYOUT_TENSORS],
                              size_t *count, const nyb_layout_spec *spec, const char *module,
                              nyb_arena *arena, nyb_err *err)
{
    static const size_t shape[2] = {1, 0};
    const nyb_status status = layout->tensors(out, count, spec, module, arena, err);
    if (status != NYB_OK || !spec->input_scale)
        return status;
    return nyb_layout_describe(&out[(*count)++], module, "input_scale", spec->input_dtype, shape,
                               arena, err);
}

nyb_status nyb_layout_bytes(const nyb_layout *layout, const nyb_layout_spec *spec, size_t *bytes,
                            nyb_err *err)
{
    nyb_tensor parts[NYB_LAYOUT_TENSORS];
    nyb_arena arena = {0};
    size_t count = 0;
    const nyb_status status = nyb_layout_tensors(layout, parts, &count, spec, "", &arena, err);
    *bytes = 0;
    for (size_t i = 0; status == NYB_OK && i < count; i++) // named ".part": there is no module
        *bytes += nyb_part_of_matrix(parts[i].name + 1) ? parts[i].bytes : 0;
    nyb_arena_clear(&arena);
    return status;
}

// Packs into scratch memory and puts what was packed. The arena is the caller's to clear.
static nyb_status pack_and_put(const nyb_layout *layout, nyb_store *store, const char *module,
                               const nyb_qweight *q, nyb_arena *arena, nyb_err *err)
{
    nyb_tensor tensors[NYB_LAYOUT_TENSORS];
    void *buffers[NYB_LAYOUT_TENSORS];
    size_t count = 0;
    const nyb_layout_spec spec = nyb_layout_spec_of(q);

    nyb_status status = layout->check(&spec, module, err);
    if (status == NYB_OK)
        status = nyb_layout_tensors(layout, tensors, &count, &spec, module, arena, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        buffers[i] = nyb_arena_alloc(arena, tensors[i].bytes, 1);
        if (!buffers[i])
            return nyb_no_memory(err, tensors[i].name, tensors[i].bytes, 1);
    }
    status = layout->pack(q, buffers, module, err);
    if (spec.input_scale)
        nyb_narrow(buffers[count - 1], spec.input_dtype, &q->input_scale, 1);
    for (size_t i = 0; i < count && status == NYB_OK; i++)
        status = nyb_store_put(store, tensors[i].name, buffers[i], tensors[i].bytes, err);
    return status;
}

nyb_status nyb_layout_put(const nyb_layout *layout, nyb_store *store, const char *module,
                          const nyb_qweight *q, nyb_err *err)
{
    nyb_arena arena = {0};
    const nyb_status status = pack_and_put(layout, store, module, q, &arena, err);
    nyb_arena_clear(&arena);
    return status;
}
