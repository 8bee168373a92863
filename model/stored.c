#include "model/stored.h"

#include "core/dtype.h"
#include "core/memory.h"
#include "core/qweight.h"
#include "kernels/rows.h"
#include "model/binding.h"

static size_t most_linears(const nyb_model *model)
{
    size_t most = 0;
    for (size_t b = 0; b < nyb_block_count(model); b++)
        most = nyb_linear_count(model, b) > most ? nyb_linear_count(model, b) : most;
    return most;
}

nyb_status nyb_stored_new(nyb_stored **out, const nyb_model *model, nyb_err *err)
{
    const size_t count = most_linears(model);
    nyb_stored *const s = nyb_alloc(1, sizeof(*s));
    *out = NULL;
    if (!s)
        return nyb_no_memory(err, "a block's layers", 1, sizeof(*s));
    s->capacity = count;
    s->weights = nyb_alloc(count, sizeof(*s->weights));
    s->codes = nyb_alloc(count, sizeof(*s->codes));
    s->copies = nyb_alloc(count, sizeof(*s->copies));
    s->inputs = nyb_alloc(count, sizeof(*s->inputs));
    s->memory = nyb_alloc(count, sizeof(*s->memory));
    s->shared = nyb_alloc(count, sizeof(*s->shared));
    if (!s->weights || !s->codes || !s->copies || !s->inputs || !s->memory || !s->shared) {
        nyb_stored_free(s);
        return nyb_no_memory(err, "a block's layers", count, sizeof(*s->weights));
    }
    *out = s;
    return NYB_OK;
}

static void drop_inputs(nyb_stored *s)
{
    for (size_t i = 0; s->memory && i < s->capacity; i++) {
        nyb_free(s->memory[i]);
        s->memory[i] = NULL;
    }
}

void nyb_stored_free(nyb_stored *s)
{
    if (!s)
        return;
    drop_inputs(s);
    for (size_t i = 0; s->codes && i < s->capacity; i++)
        nyb_lowbit_clear(&s->codes[i]);
    for (size_t i = 0; s->copies && i < s->capacity; i++)
        nyb_free(s->copies[i]);
    nyb_free(s->weights);
    nyb_free(s->codes);
    nyb_free(s->copies);
    nyb_free(s->inputs);
    nyb_free(s->memory);
    nyb_free(s->shared);
    nyb_free(s);
}

size_t nyb_stored_bytes(const nyb_model *model)
{
    size_t most = 0;
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        size_t bytes = 0;
        for (size_t i = 0; i < nyb_linear_count(model, b); i++) {
            const nyb_linear *const l = nyb_linear_at(model, b, i);
            size_t some = 0;
            if (l->quantized && l->kind == NYB_CODE_INT)
                some = nyb_lowbit_bytes(l->rows, l->cols, l->bits, l->group_size);
            else if (l->quantized || !nyb_linear_is_plain(l))
                some = l->rows * l->cols * sizeof(float);
            if (!nyb_add_size(bytes, some, &bytes))
                return SIZE_MAX;
        }
        most = bytes > most ? bytes : most;
    }
    return most;
}

static nyb_status check_floats(const nyb_tensor *tensor, const nyb_linear *linear, nyb_err *err)
{
    const size_t count = linear->rows * linear->cols;
    const size_t bad = nyb_rows_ops_get()->first_not_finite(tensor->at, tensor->dtype, count);
    if (bad == count)
        return NYB_OK;
    float value = 0.0f;
    nyb_widen(&value, (const unsigned char *) tensor->at + bad * nyb_dtype_bytes(tensor->dtype),
              tensor->dtype, 1);
    return nyb_fail(err, NYB_E_NUMERIC, "tensor '%s' holds %g at (%zu, %zu)", tensor->name,
                    (double) value, bad / linear->cols, bad % linear->cols);
}

static nyb_status copy_floats(nyb_stored *s, size_t index, const nyb_linear *linear, nyb_err *err)
{
    nyb_free(s->copies[index]);
    s->copies[index] = nyb_alloc_raw(linear->rows * linear->cols, sizeof(float));
    s->weights[index].at = s->copies[index];
    if (!s->copies[index])
        return nyb_no_memory(err, linear->module, linear->rows, linear->cols * sizeof(float));
    return nyb_linear_widen(linear, 0, nyb_mat_of(s->copies[index], linear->rows, linear->cols),
                            err);
}

nyb_status nyb_stored_load(nyb_stored *s, const nyb_model *model, size_t block, size_t index,
                           nyb_err *err)
{
    const nyb_linear *const linear = nyb_linear_at(model, block, index);
    nyb_weight *const weight = &s->weights[index];
    *weight = (nyb_weight){.rows = linear->rows, .cols = linear->cols, .dtype = NYB_F32};
    nyb_lowbit_clear(&s->codes[index]);
    if (!linear->quantized && !nyb_linear_is_plain(linear))
        return copy_floats(s, index, linear, err);
    if (!linear->quantized) {
        weight->at = linear->weight->at;
        weight->dtype = linear->weight->dtype;
        return check_floats(linear->weight, linear, err);
    }
    nyb_qweight q;
    nyb_status status =
        nyb_quantization_read(&q, nyb_model_quantization(model), nyb_model_checkpoint(model),
                              linear->module, linear->rows, linear->cols, err);
    if (status == NYB_OK && q.kind == NYB_CODE_INT) {
        status = nyb_lowbit_init(&s->codes[index], &q, err);
        weight->codes = &s->codes[index];
    } else if (status == NYB_OK) {
        nyb_free(s->copies[index]);
        status = nyb_qweight_floats(&s->copies[index], &q, err);
        weight->at = s->copies[index];
    }
    nyb_qweight_clear(&q);
    return status;
}

nyb_status nyb_stored_finish(nyb_stored *s, const nyb_model *model, size_t block, nyb_err *err)
{
    drop_inputs(s); // of the block before
    s->count = nyb_linear_count(model, block);
    for (size_t i = 0; i < s->count; i++)
        s->shared[i] = i;
    for (size_t k = 0; k < nyb_stage_count(model, block); k++) {
        const nyb_stage stage = nyb_stage_at(model, block, k);
        for (size_t i = stage.first + 1; i < stage.first + stage.count; i++) {
            if (nyb_weight_same_input(&s->weights[stage.first], &s->weights[i]))
                s->shared[i] = stage.first;
        }
    }
    for (size_t i = 0; i < s->count; i++) {
        const size_t bytes = nyb_weight_input_bytes(&s->weights[i]);
        s->memory[i] = s->shared[i] == i && bytes ? nyb_alloc(bytes, 1) : NULL;
        if (s->shared[i] == i && bytes && !s->memory[i])
            return nyb_no_memory(err, "a layer's input", bytes, 1);
    }
    return NYB_OK;
}

void nyb_stored_input(const nyb_stored *s, size_t first, size_t count, const float *x)
{
    for (size_t i = first; i < first + count; i++) {
        const size_t from = s->shared[i];
        s->inputs[i] =
            from < i ? s->inputs[from] : nyb_weight_input_make(&s->weights[i], s->memory[i], x);
    }
}
