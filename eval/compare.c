#include "nybble/eval.h"

#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "core/dtype.h"
#include "eval/yardstick.h"

static nyb_eval_result result_of(const nyb_windows *windows, const nyb_score *score)
{
    const double loss = score->loss / (double) score->scored;
    return (nyb_eval_result){
        .tokens = windows->tokens,
        .windows = windows->count,
        .scored = score->scored,
        .line_ends = windows->stream.line_ends,
        .bos = windows->stream.begins,
        .loss = loss,
        .perplexity = exp(loss),
    };
}

// What a linear layer's matrix takes; of a tensor that holds several of them, its share.
static size_t layer_bytes(const nyb_checkpoint *file, const nyb_linear *linear)
{
    if (linear->quantized)
        return nyb_checkpoint_layer_bytes(file, linear->module);
    const nyb_block_size block = nyb_dtype_block(linear->weight->dtype);
    return linear->rows * linear->cols / block.values * block.bytes;
}

static void add_layer(const nyb_checkpoint *file, const nyb_linear *linear, nyb_compared *row,
                      double *weights)
{
    row->layer_bytes += layer_bytes(file, linear);
    *weights += (double) linear->rows * (double) linear->cols;
}

static void measure_size(const nyb_model *model, nyb_compared *row)
{
    const nyb_checkpoint *const file = nyb_model_checkpoint(model);
    double weights = 0.0;
    for (size_t i = 0; i < nyb_checkpoint_files(file); i++) {
        size_t bytes = 0;
        (void) nyb_checkpoint_file_bytes(file, i, &bytes);
        row->bytes += bytes;
    }
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; i < nyb_linear_count(model, b); i++)
            add_layer(file, nyb_linear_at(model, b, i), row, &weights);
    }
    if (nyb_model_embedding(model)->quantized)
        add_layer(file, nyb_model_embedding(model), row, &weights);
    if (nyb_model_head(model)->quantized && !nyb_model_head_tied(model))
        add_layer(file, nyb_model_head(model), row, &weights);
    row->bits_per_weight = weights > 0.0 ? 8.0 * (double) row->layer_bytes / weights : 0.0;
}

// With none that is quantised, what is asked for would change nothing.
static nyb_status check_activations(nyb_model *const *models, size_t count,
                                    const nyb_eval_params *params, nyb_err *err)
{
    if ((unsigned) params->activations >= NYB_ACTIVATIONS_INT8_STATIC)
        return nyb_fail(err, NYB_E_ARG, "activations are %d", (int) params->activations);
    if (params->activations == NYB_ACTIVATIONS_NONE)
        return NYB_OK;
    for (size_t m = 0; m < count; m++) {
        for (size_t b = 0; b < nyb_block_count(models[m]); b++) {
            for (size_t i = 0; i < nyb_linear_count(models[m], b); i++) {
                if (nyb_linear_at(models[m], b, i)->quantized)
                    return NYB_OK;
            }
        }
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: no layer is quantised, and --activations %s is for inputs of such layers; "
                    "quantise the checkpoint first",
                    nyb_model_folder(models[0]), nyb_activations_name(params->activations));
}

// One text, as it is cut for models, and what is kept of the first of them.
typedef struct scale {
    const nyb_eval_params *params;
    const nyb_windows *windows;
    nyb_finals *finals; // NULL: nothing
} scale;

static nyb_status score_windows(const nyb_context *ctx, nyb_model *const *models, size_t count,
                                const scale *by, nyb_compared *rows, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_score *const scores = nyb_alloc(count, sizeof(*scores));
    if (!scores)
        return nyb_no_memory(err, "scores", count, sizeof(*scores));
    nyb_status status = check_activations(models, count, by->params, err);
    if (status == NYB_OK)
        status = nyb_score_windows(ctx, models, count, by->windows, by->finals, scores, err);
    for (size_t m = 0; status == NYB_OK && m < count; m++) {
        rows[m] = (nyb_compared){
            .eval = result_of(by->windows, &scores[m]),
            .kl = scores[m].kl / (double) scores[m].scored,
            .top1 = (double) scores[m].agree / (double) scores[m].scored,
        };
        rows[m].eval.seconds = nyb_seconds() - start;
        measure_size(models[m], &rows[m]);
    }
    nyb_free(scores);
    return status;
}

static nyb_status open_windows(nyb_windows *out, const nyb_model *model,
                               const nyb_eval_params *params, nyb_err *err)
{
    const nyb_status status = nyb_windows_open(out, model, params, err);
    out->activations = params->activations;
    return status;
}

static nyb_status score_models(const nyb_context *ctx, nyb_model *const *models, size_t count,
                               const nyb_eval_params *params, nyb_compared *rows, nyb_err *err)
{
    nyb_windows windows;
    nyb_status status = open_windows(&windows, models[0], params, err);
    if (status != NYB_OK)
        return status;
    status = score_windows(ctx, models, count, &(scale){params, &windows, NULL}, rows, err);
    nyb_windows_close(&windows);
    return status;
}

nyb_status nyb_compare(const nyb_context *ctx, const char *const *folders, size_t count,
                       const nyb_eval_params *params, nyb_compared *rows, nyb_err *err)
{
    if (count == 0)
        return nyb_fail(err, NYB_E_ARG, "no checkpoint to compare");
    nyb_model **const models = nyb_alloc(count, sizeof(nyb_model *));
    if (!models)
        return nyb_no_memory(err, "models", count, sizeof(nyb_model *));
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = nyb_model_open(&models[i], folders[i], err);
    if (status == NYB_OK)
        status = score_models(ctx, models, count, params, rows, err);
    for (size_t i = 0; i < count; i++)
        nyb_model_close(models[i]);
    nyb_free(models);
    return status;
}

nyb_status nyb_eval(const nyb_context *ctx, const char *folder, const nyb_eval_params *params,
                    nyb_eval_result *result, nyb_err *err)
{
    nyb_compared row;
    const nyb_status status = nyb_compare(ctx, &folder, 1, params, &row, err);
    if (status == NYB_OK)
        *result = row.eval;
    return status;
}

// ---- One after the other --------------------------------------------------------------------

nyb_status nyb_yardstick_open(nyb_yardstick *out, const char *original,
                              const nyb_eval_params *params, nyb_err *err)
{
    *out = (nyb_yardstick){.params = params};
    nyb_status status = nyb_model_open(&out->original, original, err);
    if (status == NYB_OK)
        status = open_windows(&out->windows, out->original, params, err);
    if (status != NYB_OK)
        nyb_yardstick_close(out);
    return status;
}

void nyb_yardstick_close(nyb_yardstick *yardstick)
{
    nyb_free(yardstick->finals.at);
    nyb_windows_close(&yardstick->windows);
    nyb_model_close(yardstick->original);
    *yardstick = (nyb_yardstick){0};
}

// What every original of one text is kept as, where it takes no more memory than this.
static nyb_finals *finals_of(nyb_yardstick *y)
{
    enum { MOST_BYTES = 256 << 20 };
    const nyb_window *const last = &y->windows.at[y->windows.count - 1];
    const size_t tokens = last->start + last->length;
    const size_t hidden = nyb_model_config_of(y->original)->hidden;
    if (!y->finals.at && tokens <= MOST_BYTES / sizeof(float) / hidden)
        y->finals.at = nyb_alloc_raw(tokens, hidden * sizeof(float));
    return y->finals.at ? &y->finals : NULL;
}

nyb_status nyb_yardstick_measure(nyb_yardstick *yardstick, const nyb_context *ctx,
                                 const char *folder, bool divergence, nyb_compared *row,
                                 nyb_err *err)
{
    nyb_yardstick *const y = yardstick;
    nyb_model *models[] = {y->original, NULL};
    nyb_compared rows[2];
    const scale by = {y->params, &y->windows, divergence ? finals_of(y) : NULL};
    nyb_status status = folder ? nyb_model_open(&models[1], folder, err) : NYB_OK;
    if (status == NYB_OK && folder && divergence)
        status = score_windows(ctx, models, 2, &by, rows, err);
    else if (status == NYB_OK)
        status = score_windows(ctx, models + (folder != NULL), 1, &by, rows, err);
    nyb_model_close(models[1]);
    if (status == NYB_OK)
        *row = rows[folder && divergence];
    return status;
}
