#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "kernels/vector.h"
#include "model/forward.h"

// A real small model: 5 layers, 8 heads that share 4 keys, an odd intermediate size of 172.
static nyb_model *open_stories(void)
{
    nyb_model *model = NULL;
    nyb_err err = {0};
    if (nyb_model_open(&model, NYB_EXAMPLES "/stories260k", &err) != NYB_OK)
        fail_msg("%s", err.text);
    return model;
}

static void fill_ids(uint32_t *ids, size_t count, size_t vocab, uint64_t seed)
{
    for (size_t i = 0; i < count; i++)
        ids[i] = (uint32_t) nyb_random_below(&seed, vocab);
}

// Logits of all tokens of ragged samples; the caller frees them (nyb_free).
static float *forward(nyb_model *model, unsigned threads, const size_t *starts, size_t samples,
                      const uint32_t *ids)
{
    const nyb_context ctx = {.threads = threads};
    const size_t vocab = nyb_model_config_of(model)->vocab, tokens = starts[samples];
    nyb_batch batch;
    nyb_block_weights weights;
    assert_int_equal(nyb_batch_init(&batch, &ctx, model, starts, samples, NULL), NYB_OK);
    assert_int_equal(nyb_block_weights_init(&weights, model, NULL), NYB_OK);
    assert_int_equal(nyb_forward(&ctx, &batch, &weights, ids, "test", NULL), NYB_OK);
    float *const logits = nyb_alloc_raw(tokens * vocab, sizeof(float));
    assert_non_null(logits);
    // In pieces of an odd size, as callers with little memory do it.
    for (size_t t = 0; t < tokens; t += 101) {
        const size_t rows = tokens - t < 101 ? tokens - t : 101;
        assert_int_equal(
            nyb_head(&ctx, &batch, t, nyb_mat_of(logits + t * vocab, rows, vocab), NULL), NYB_OK);
    }
    nyb_batch_clear(&batch);
    nyb_block_weights_clear(&weights);
    return logits;
}

static double largest_difference(const float *a, const float *b, size_t count)
{
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double off = fabs((double) a[i] - (double) b[i]);
        if (!(off <= worst))
            worst = off; // also when it is NaN
    }
    return worst;
}

// Batches of every kind: one token, narrow, several tiles, ragged.
static void threads_do_not_change_a_bit(void **state)
{
    (void) state;
    static const size_t cases[][5] = {
        {1, 1}, {1, 7}, {1, 32}, {1, 33}, {1, 300}, {3, 5, 140, 400},
    };
    nyb_model *const model = open_stories();
    const size_t vocab = nyb_model_config_of(model)->vocab;
    uint32_t ids[512];
    fill_ids(ids, 512, vocab, 11);
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        size_t starts[4] = {0};
        memcpy(starts + 1, cases[c] + 1, cases[c][0] * sizeof(size_t));
        const size_t samples = cases[c][0], count = starts[samples] * vocab;
        float *const want = forward(model, 1, starts, samples, ids);
        for (unsigned threads = 2; threads <= 4; threads++) {
            float *const got = forward(model, threads, starts, samples, ids);
            assert_memory_equal(want, got, count * sizeof(float));
            nyb_free(got);
        }
        nyb_free(want);
    }
    nyb_model_close(model);
}

// A sample's logits do not depend on what else is in the batch, but for rounding.
static void ragged_batches_equal_single_samples(void **state)
{
    (void) state;
    nyb_model *const model = open_stories();
    const size_t vocab = nyb_model_config_of(model)->vocab;
    static const size_t starts[] = {0, 1, 38, 166, 167, 470};
    uint32_t ids[470];
    double worst = 0.0;
    fill_ids(ids, 470, vocab, 12);
    float *const together = forward(model, 2, starts, 5, ids);
    for (size_t s = 0; s < 5; s++) {
        const size_t one[2] = {0, starts[s + 1] - starts[s]};
        float *const alone = forward(model, 2, one, 1, ids + starts[s]);
        worst =
            fmax(worst, largest_difference(together + starts[s] * vocab, alone, one[1] * vocab));
        nyb_free(alone);
    }
    print_message("ragged against single: %.2g (bound 1e-4)\n", worst);
    assert_true(worst < 1e-4);
    nyb_free(together);
    nyb_model_close(model);
}

// Reading a prompt and then a token at a time gives what one pass over all tokens gives.
static void cached_decoding_equals_one_pass(void **state)
{
    (void) state;
    enum { PROMPT = 45, MORE = 40, TOKENS = PROMPT + MORE };
    const nyb_context ctx = {.threads = 2};
    nyb_model *const model = open_stories();
    const size_t vocab = nyb_model_config_of(model)->vocab;
    static const size_t starts[] = {0, TOKENS};
    uint32_t ids[TOKENS];
    fill_ids(ids, TOKENS, vocab, 13);
    float *const want = forward(model, 2, starts, 1, ids);
    float *const got = nyb_alloc_raw(vocab, sizeof(float));

    nyb_cache cache;
    nyb_batch prompt, step;
    nyb_block_weights weights;
    assert_int_equal(nyb_cache_init(&cache, model, TOKENS, NULL), NYB_OK);
    assert_int_equal(nyb_batch_init_cached(&prompt, &ctx, model, PROMPT, &cache, NULL), NYB_OK);
    assert_int_equal(nyb_batch_init_cached(&step, &ctx, model, 1, &cache, NULL), NYB_OK);
    assert_int_equal(nyb_block_weights_init(&weights, model, NULL), NYB_OK);
    assert_int_equal(nyb_forward(&ctx, &prompt, &weights, ids, "test", NULL), NYB_OK);
    double worst = 0.0;
    for (size_t t = PROMPT; t < TOKENS; t++) {
        assert_int_equal(nyb_forward(&ctx, &step, &weights, ids + t, "test", NULL), NYB_OK);
        assert_int_equal(cache.used, t + 1);
        assert_int_equal(nyb_head(&ctx, &step, 0, nyb_mat_of(got, 1, vocab), NULL), NYB_OK);
        worst = fmax(worst, largest_difference(got, want + t * vocab, vocab));
    }
    print_message("cached against one pass: %.2g (bound 1e-4)\n", worst);
    assert_true(worst < 1e-4);
    nyb_batch_clear(&prompt);
    nyb_batch_clear(&step);
    nyb_block_weights_clear(&weights);
    nyb_cache_clear(&cache);
    nyb_free(got);
    nyb_free(want);
    nyb_model_close(model);
}

// The largest relative difference of `out` [tokens, rows] and in W^T in f64, tokens of a sample.
static double product_error(nyb_mat out, nyb_mat in, nyb_mat w)
{
    double worst = 0.0;
    for (size_t t = 0; t < out.rows; t++) {
        for (size_t i = 0; i < w.rows; i++) {
            double want = 0.0, size = 1e-6;
            for (size_t j = 0; j < w.cols; j++) {
                const double term = (double) nyb_row(in, t)[j] * (double) nyb_row(w, i)[j];
                want += term;
                size += fabs(term);
            }
            worst = fmax(worst, fabs((double) nyb_row(out, t)[i] - want) / size);
        }
    }
    return worst;
}

// What nyb_stage_input() hands out is what the stage multiplies, and weights that the caller
// changed are the ones that run: the heart of the walk.
static void stages_run_on_the_inputs_they_show(void **state)
{
    (void) state;
    enum { TOKENS = 70 };
    const nyb_context ctx = {.threads = 2};
    nyb_model *const model = open_stories();
    const nyb_vector_ops *const ops = nyb_vector_ops_get();
    static const size_t starts[] = {0, 30, TOKENS};
    uint32_t ids[TOKENS];
    nyb_batch batch;
    nyb_block_weights weights;
    double worst = 0.0;
    size_t seen = 0;
    fill_ids(ids, TOKENS, 512, 14);
    assert_int_equal(nyb_batch_init(&batch, &ctx, model, starts, 2, NULL), NYB_OK);
    assert_int_equal(nyb_block_weights_init(&weights, model, NULL), NYB_OK);
    assert_int_equal(nyb_embed(&ctx, &batch, ids, NULL), NYB_OK);
    assert_int_equal(nyb_block_weights_load(&ctx, &weights, 1, NULL), NYB_OK);
    for (size_t s = 0; s < nyb_stage_count(model, 1); s++) {
        const nyb_stage stage = nyb_stage_at(model, 1, s);
        nyb_mat in =
            nyb_mat_of(nyb_alloc(TOKENS * stage.width, sizeof(float)), TOKENS, stage.width);
        nyb_mat x = nyb_mat_of(nyb_alloc(TOKENS * 64, sizeof(float)), TOKENS, 64);
        nyb_stage_input(&batch, &weights, s, 0, nyb_block(in, 0, 41, 0, in.cols));
        nyb_stage_input(&batch, &weights, s, 41, nyb_block(in, 41, TOKENS, 0, in.cols));
        memcpy(x.at, batch.x.at, TOKENS * 64 * sizeof(float));
        for (size_t i = 0; i < stage.count; i++)
            ops->scale(weights.weights[stage.first + i].at, 0.75f, 500);
        nyb_stage_run(&ctx, &weights, s, &batch);
        if (stage.count == 3) { // v passes through attention untouched
            worst = fmax(worst, product_error(nyb_block(batch.wide, 0, TOKENS, 96, 128), in,
                                              weights.weights[stage.first + 2]));
        } else if (stage.count == 1) { // the residual stream grows by the product
            for (size_t i = 0; i < TOKENS * 64; i++)
                x.at[i] = batch.x.at[i] - x.at[i];
            worst = fmax(worst, product_error(x, in, weights.weights[stage.first]));
        }
        seen += stage.count;
        nyb_free(in.at);
        nyb_free(x.at);
    }
    assert_int_equal(seen, 7);
    assert_int_equal(nyb_linear_count(model, 1), 7);
    print_message("stage products: %.2g of the terms' sum (bound 2e-6)\n", worst);
    assert_true(worst > 0.0 && worst < 2e-6);
    nyb_batch_clear(&batch);
    nyb_block_weights_clear(&weights);
    nyb_model_close(model);
}

enum { KEPT_SAMPLES = 6, KEPT_LENGTH = 20, KEPT_TOKENS = KEPT_SAMPLES * KEPT_LENGTH };

// What is seen of a pass over some samples of a batch: every stage's input as bf16, and x behind it.
typedef struct seen {
    uint16_t *inputs; // [stages of all blocks, KEPT_TOKENS, 172]
    float *x;         // [blocks, KEPT_TOKENS, 64]
    size_t bytes;     // of the batch
} seen;

static seen see_pass(nyb_model *model, size_t samples, nyb_dtype operands)
{
    const nyb_context ctx = {.threads = 2, .compute = NYB_COMPUTE_BF16};
    const size_t stages = nyb_stage_count(model, 0), blocks = nyb_block_count(model);
    uint32_t ids[KEPT_TOKENS];
    static float row[172];
    nyb_batch batch;
    nyb_block_weights weights;
    seen s = {.inputs = nyb_alloc(blocks * stages * KEPT_TOKENS * 172, sizeof(*s.inputs)),
              .x = nyb_alloc(blocks * KEPT_TOKENS * 64, sizeof(*s.x)),
              .bytes = nyb_batch_kept_bytes(&ctx, model, KEPT_SAMPLES, KEPT_LENGTH, operands)};
    fill_ids(ids, KEPT_TOKENS, 512, 15);
    assert_int_equal(
        nyb_batch_init_kept(&batch, &ctx, model, KEPT_SAMPLES, KEPT_LENGTH, operands, NULL),
        NYB_OK);
    assert_int_equal(batch.operands, operands);
    nyb_batch_use(&batch, samples);
    assert_int_equal(nyb_block_weights_init(&weights, model, NULL), NYB_OK);
    assert_int_equal(nyb_embed(&ctx, &batch, ids, NULL), NYB_OK);
    for (size_t b = 0; b < blocks; b++) {
        assert_int_equal(nyb_block_weights_load(&ctx, &weights, b, NULL), NYB_OK);
        for (size_t i = 0; i < stages; i++) {
            const size_t width = nyb_stage_at(model, b, i).width;
            for (size_t t = 0; t < batch.tokens; t++) {
                nyb_stage_input(&batch, &weights, i, t, nyb_mat_of(row, 1, width));
                nyb_narrow(s.inputs + ((b * stages + i) * KEPT_TOKENS + t) * 172, NYB_BF16, row,
                           width);
            }
            nyb_stage_run(&ctx, &weights, i, &batch);
        }
        memcpy(s.x + b * KEPT_TOKENS * 64, batch.x.at, batch.tokens * 64 * sizeof(float));
    }
    nyb_batch_clear(&batch);
    nyb_block_weights_clear(&weights);
    return s;
}

// Products and Hessians read the same bits whether a batch keeps operands as bf16 or as f32, and
// where the samples at hand are so few that a batch made for them would multiply in f32.
static void operands_kept_as_bf16_change_no_bit(void **state)
{
    (void) state;
    nyb_model *const model = open_stories();
    const nyb_context bf16 = {.compute = NYB_COMPUTE_BF16}, f32 = {.compute = NYB_COMPUTE_F32};
    const size_t rows = nyb_stage_count(model, 0) * nyb_block_count(model);
    assert_int_equal(nyb_batch_operands(&bf16, model), NYB_BF16);
    assert_int_equal(nyb_batch_operands(&f32, model), NYB_F32);
    assert_int_equal(nyb_batch_operands(NULL, model), NYB_F32);
    const seen want = see_pass(model, KEPT_SAMPLES, NYB_F32);
    const seen got = see_pass(model, KEPT_SAMPLES, NYB_BF16);
    const seen one = see_pass(model, 1, NYB_BF16);
    assert_true(got.bytes + KEPT_TOKENS * 24 * sizeof(float) < want.bytes);
    assert_memory_equal(want.inputs, got.inputs, rows * KEPT_TOKENS * 172 * 2);
    for (size_t r = 0; r < rows; r++)
        assert_memory_equal(want.inputs + r * KEPT_TOKENS * 172, one.inputs + r * KEPT_TOKENS * 172,
                            KEPT_LENGTH * 172 * sizeof(uint16_t));
    assert_memory_equal(want.x, got.x, nyb_block_count(model) * KEPT_TOKENS * 64 * sizeof(float));
    assert_true(got.inputs[(rows - 1) * KEPT_TOKENS * 172] != 0);
    const seen *const all[] = {&want, &got, &one};
    for (size_t i = 0; i < 3; i++) {
        nyb_free(all[i]->inputs);
        nyb_free(all[i]->x);
    }
    nyb_model_close(model);
}

static void bytes_are_known_before(void **state)
{
    (void) state;
    const nyb_context ctx = {.threads = 2};
    nyb_model *const model = open_stories();
    const size_t small = nyb_batch_bytes(&ctx, model, 1, 256, 256);
    const size_t large = nyb_batch_bytes(&ctx, model, 4, 1024, 256);
    assert_true(small > 256 * (64 + 172) * sizeof(float) && small < 4u << 20);
    assert_true(large > small && large < 4 * small);
    assert_int_equal(nyb_batch_bytes(&ctx, model, 1, SIZE_MAX / 8, 256), SIZE_MAX);
    nyb_batch batch;
    nyb_err err = {0};
    assert_int_equal(nyb_batch_init_even(&batch, &ctx, model, SIZE_MAX / 4, 8, &err), NYB_E_NOMEM);
    assert_null(batch.memory);
    nyb_model_close(model);
}

static void bad_batches_are_refused(void **state)
{
    (void) state;
    const nyb_context ctx = {.threads = 1};
    nyb_model *const model = open_stories();
    static const size_t falling[] = {0, 5, 3}, late[] = {1, 5}, empty[] = {0, 4, 4};
    nyb_batch batch;
    nyb_err err = {0};
    assert_int_equal(nyb_batch_init(&batch, &ctx, model, falling, 2, &err), NYB_E_ARG);
    assert_int_equal(nyb_batch_init(&batch, &ctx, model, late, 1, &err), NYB_E_ARG);
    assert_int_equal(nyb_batch_init(&batch, &ctx, model, empty, 2, &err), NYB_E_ARG);
    assert_int_equal(nyb_batch_init(&batch, &ctx, model, empty, 0, &err), NYB_E_ARG);
    assert_int_equal(nyb_batch_init_even(&batch, &ctx, model, 1, 3, &err), NYB_OK);
    const uint32_t ids[] = {1, 511, 512};
    assert_int_equal(nyb_embed(&ctx, &batch, ids, &err), NYB_E_ARG);
    assert_non_null(strstr(err.text, "512 at 2"));
    nyb_batch_clear(&batch);
    nyb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(ragged_batches_equal_single_samples),
        cmocka_unit_test(cached_decoding_equals_one_pass),
        cmocka_unit_test(stages_run_on_the_inputs_they_show),
        cmocka_unit_test(operands_kept_as_bf16_change_no_bit),
        cmocka_unit_test(bytes_are_known_before),
        cmocka_unit_test(bad_batches_are_refused),
    };
    return cmocka_run_group_tests_name("forward", tests, NULL, NULL);
}
