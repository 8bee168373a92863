// Times the making of tokens, one after the other, with each model, and prints the rate beside the
// bytes of weights that a token reads and the bandwidth of the machine, measured in between.
// The models take turns; medians of 5.
//
// usage: generate THREADS MODEL...
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/probe.h"
#include "core/memory.h"
#include "model/model.h"
#include "nybble/generate.h"

enum { TIMES = 5, TOKENS = 32 };

typedef struct subject {
    const char *folder;
    nyb_generator *generator;
    double bytes;         // of weights that a token reads
    double rates[TIMES];  // tokens per second
    double shares[TIMES]; // of the bandwidth
} subject;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, TIMES, sizeof(*values), by_value);
    return values[TIMES / 2];
}

static double layer_bytes(const nyb_checkpoint *file, const nyb_linear *linear)
{
    if (!linear->quantized)
        return (double) (linear->rows * linear->cols * nyb_dtype_bytes(linear->weight->dtype));
    const size_t length = strlen(linear->module);
    double bytes = 0.0;
    for (size_t i = 0; i < nyb_checkpoint_count(file); i++) {
        const nyb_tensor *const t = nyb_checkpoint_at(file, i);
        if (strncmp(t->name, linear->module, length) == 0 && t->name[length] == '.')
            bytes += (double) t->bytes;
    }
    return bytes;
}

static nyb_status prepare(subject *s, const nyb_context *ctx, nyb_err *err)
{
    nyb_model *model = NULL;
    nyb_status status = nyb_model_open(&model, s->folder, err);
    if (status != NYB_OK)
        return status;
    const nyb_checkpoint *const file = nyb_model_checkpoint(model);
    s->bytes = layer_bytes(file, nyb_model_head(model));
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; i < nyb_linear_count(model, b); i++)
            s->bytes += layer_bytes(file, nyb_linear_at(model, b, i));
    }
    nyb_model_close(model);
    return nyb_generator_open(&s->generator, ctx, s->folder, err);
}

static nyb_status run(subject *s, const nyb_context *ctx, int turn, nyb_err *err)
{
    static const uint32_t prompt[] = {1};
    nyb_generate_params params = NYB_GENERATE_DEFAULTS;
    params.max_tokens = TOKENS;
    params.ignore_eos = true;
    const double bandwidth = probe_bandwidth(ctx), start = probe_seconds(ctx);
    const nyb_status status = nyb_generate(s->generator, prompt, 1, &params, NULL, NULL, NULL, err);
    s->rates[turn] = TOKENS / (probe_seconds(ctx) - start);
    s->shares[turn] = s->bytes * s->rates[turn] / bandwidth;
    return status;
}

static nyb_status run_all(subject *subjects, size_t count, const nyb_context *ctx, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = prepare(&subjects[i], ctx, err);
    for (int turn = 0; status == NYB_OK && turn < TIMES; turn++) {
        for (size_t i = 0; status == NYB_OK && i < count; i++)
            status = run(&subjects[i], ctx, turn, err);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: generate THREADS MODEL...\n");
        return 2;
    }
    const nyb_context ctx = {.threads = (unsigned) strtoul(argv[1], NULL, 10)};
    const size_t count = (size_t) argc - 2;
    subject *const subjects = nyb_alloc(count, sizeof(*subjects));
    nyb_err err = {0};
    if (!subjects)
        return 1;
    for (size_t i = 0; i < count; i++)
        subjects[i].folder = argv[i + 2];
    const nyb_status status = run_all(subjects, count, &ctx, &err);
    double first = 0.0;
    for (size_t i = 0; status == NYB_OK && i < count; i++) {
        const double rate = median(subjects[i].rates), share = median(subjects[i].shares);
        first = i == 0 ? rate : first;
        printf("%-40s %8.1f MB a token %8.1f tokens/s %6.1f %% of bandwidth %6.2f x the first\n",
               subjects[i].folder, subjects[i].bytes * 1e-6, rate, 100.0 * share, rate / first);
    }
    if (status != NYB_OK)
        fprintf(stderr, "generate: %s\n", err.text);
    for (size_t i = 0; i < count; i++)
        nyb_generator_close(subjects[i].generator);
    nyb_free(subjects);
    return status == NYB_OK ? 0 : 1;
}
