// The head of a sequence classifier: on each sample's first token, a dense layer, an activation,
// a last layer.
#include <assert.h>

#include "core/linalg.h"
#include "core/memory.h"
#include "kernels/vector.h"
#include "model/binding.h"
#include "model/forward.h"

static nyb_status read_layer(const nyb_model *model, const nyb_linear *linear, nyb_arena *arena,
                             nyb_mat *weight, nyb_mat *bias, nyb_err *err)
{
    *weight = nyb_arena_mat(arena, linear->rows, linear->cols);
    *bias = nyb_arena_mat(arena, 1, linear->rows);
    if (!weight->at || !bias->at)
        return nyb_no_memory(err, "a classifier", linear->rows, linear->cols);
    if (linear->quantized)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: '%s' is quantised, a classifier's head is not",
                        nyb_model_folder(model), linear->module);
    const nyb_status status = nyb_linear_widen(linear, 0, *weight, err);
    return status == NYB_OK ? nyb_tensor_widen(linear->bias, 0, *bias, err) : status;
}

static nyb_status run(const nyb_batch *batch, nyb_mat logits, nyb_arena *arena, nyb_err *err)
{
    const nyb_model *const m = batch->model;
    const nyb_vector_ops *const ops = nyb_vector_ops_get();
    nyb_mat dense, dense_bias, out, out_bias;
    nyb_activation act;
    nyb_status status = read_layer(m, &nyb_model_outer(m)->dense, arena, &dense, &dense_bias, err);
    if (status == NYB_OK)
        status = read_layer(m, nyb_model_head(m), arena, &out, &out_bias, err);
    const nyb_mat pooled = nyb_arena_mat(arena, 1, batch->x.cols);
    if (status == NYB_OK && !pooled.at)
        status = nyb_no_memory(err, "a classifier", 1, batch->x.cols);
    const char *const name = nyb_model_config_of(m)->arch->classifier.activation;
    if (status == NYB_OK && !nyb_activation_find(&act, name))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "activation '%s' is not supported", name);
    for (size_t i = 0; status == NYB_OK && i < batch->samples; i++) {
        nyb_gemv(pooled.at, dense, nyb_row(batch->x, batch->starts[i]));
        ops->add(pooled.at, dense_bias.at, pooled.cols);
        act.apply(pooled.at, pooled.cols);
        nyb_gemv(nyb_row(logits, i), out, pooled.at);
        ops->add(nyb_row(logits, i), out_bias.at, logits.cols);
    }
    return status;
}

nyb_status nyb_classify(const nyb_context *ctx, nyb_batch *batch, nyb_mat logits, nyb_err *err)
{
    (void) ctx;
    assert(logits.rows == batch->samples);
    if (nyb_model_config_of(batch->model)->labels != logits.cols)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: not a sequence classifier",
                        nyb_model_folder(batch->model));
    nyb_arena arena = {0};
    const nyb_status status = run(batch, logits, &arena, err);
    nyb_arena_clear(&arena);
    return status;
}
