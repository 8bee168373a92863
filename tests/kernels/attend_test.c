#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "kernels/attend.h"

enum { LEVELS = 4, CASES = 40 };

static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512,
                                        NYB_CPU_AVX2 | NYB_CPU_AVX512 | NYB_CPU_AVX512VNNI |
                                            NYB_CPU_AVX512BF16};

static size_t pick(uint64_t *seed, size_t most)
{
    return 1 + (size_t) nyb_random_below(seed, most);
}

// A random matrix whose values are exact in bf16 when asked, so that rounding them loses nothing.
static nyb_mat make(size_t rows, size_t cols, size_t stride, bool half, uint64_t *seed)
{
    nyb_mat m = {.at = nyb_alloc(rows * stride, 4), .rows = rows, .cols = cols, .stride = stride};
    assert_non_null(m.at);
    for (size_t i = 0; i < rows * stride; i++) {
        const float value = 2.0f * test_uniform(seed);
        m.at[i] = half ? nyb_f32_of_bf16(nyb_bf16_of_f32(value)) : value;
    }
    return m;
}

// Attention of one query in f64, by the definition.
static void attend_plainly(double *out, const nyb_attend *t, const float *q, size_t place)
{
    const size_t dim = t->keys.cols;
    const size_t low = t->window && place + 1 > t->window ? place + 1 - t->window : 0;
    double top = -1e300, total = 0.0;
    static double scores[1024];
    for (size_t k = low; k <= place; k++) {
        scores[k] = 0.0;
        for (size_t d = 0; d < dim; d++)
            scores[k] += (double) q[d] * (double) nyb_row(t->keys, k)[d];
        scores[k] *= (double) t->scale;
        top = fmax(top, scores[k]);
    }
    memset(out, 0, dim * sizeof(*out));
    for (size_t k = low; k <= place; k++) {
        const double weight = exp(scores[k] - top);
        total += weight;
        for (size_t d = 0; d < dim; d++)
            out[d] += weight * (double) nyb_row(t->values, k)[d];
    }
    for (size_t d = 0; d < dim; d++)
        out[d] /= total;
}

// The largest difference of one random call from the definition.
static double try_case(const nyb_gemm *g, unsigned cpu, bool half, uint64_t *seed)
{
    const size_t heads = pick(seed, 3), dim = pick(seed, 140);
    const size_t count = pick(seed, NYB_ATTEND_TILE), first = nyb_random_below(seed, 400);
    const nyb_mat q = make(count, heads * dim, heads * dim + pick(seed, 9), half, seed);
    const nyb_mat keys = make(first + count, dim, dim + pick(seed, 40), half, seed);
    const nyb_mat values = make(first + count, dim, dim + pick(seed, 40), half, seed);
    float *const before = nyb_alloc(count * q.stride, 4);
    memcpy(before, q.at, count * q.stride * 4);
    nyb_attend t = {.gemm = g,
                    .ops = nyb_vector_ops_for(cpu),
                    .q = q.at,
                    .count = count,
                    .stride = q.stride,
                    .heads = heads,
                    .head_step = dim,
                    .keys = keys,
                    .values = values,
                    .first = first,
                    .window = nyb_random_unit(seed) < 0.5 ? 0 : pick(seed, 300),
                    .scale = 1.0f / sqrtf((float) dim)};
    const size_t words = nyb_attend_words(g, count, heads, dim);
    uint32_t *const scratch = nyb_alloc(words, 4);
    memset(scratch, 0xff, words * 4);
    nyb_attend_run(&t, scratch);

    double worst = 0.0, want[256];
    for (size_t i = 0; i < count; i++) {
        for (size_t h = 0; h < heads; h++) {
            attend_plainly(want, &t, before + i * q.stride + h * dim, first + i);
            for (size_t d = 0; d < dim; d++) {
                const double off = fabs((double) nyb_row(q, i)[h * dim + d] - want[d]);
                worst = off <= worst ? worst : off;
            }
        }
        assert_memory_equal(nyb_row(q, i) + q.cols, before + i * q.stride + q.cols,
                            (q.stride - q.cols) * 4);
    }
    nyb_free(q.at);
    nyb_free(keys.at);
    nyb_free(values.at);
    nyb_free(before);
    nyb_free(scratch);
    return worst;
}

// Values are below 2, and weights rounded to bf16 are off by 2^-9 of themselves.
static void result_is_the_definition(void **state)
{
    (void) state;
    size_t tried = 0;
    for (size_t l = 0; l < LEVELS; l++) {
        if (levels[l] & ~nyb_cpu_detected()) {
            print_message("%s is not on this CPU\n", nyb_cpu_level(levels[l]));
            continue;
        }
        for (nyb_compute compute = NYB_COMPUTE_F32; compute <= NYB_COMPUTE_BF16; compute++) {
            const bool half = compute == NYB_COMPUTE_BF16;
            const double bound = half ? 2.0 * 0x1p-9 : 4e-6;
            uint64_t seed = 21;
            double worst = 0.0;
            for (int i = 0; i < CASES; i++, tried++)
                worst =
                    fmax(worst, try_case(nyb_gemm_for(compute, levels[l]), levels[l], half, &seed));
            print_message("%s %s: worst difference %.2g (tolerance %.2g)\n",
                          nyb_cpu_level(levels[l]), half ? "bf16" : "f32", worst, bound);
            assert_true(worst > 0.0 && worst < bound);
        }
    }
    assert_true(tried >= 2 * (size_t) CASES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(result_is_the_definition)};
    return cmocka_run_group_tests_name("attend", tests, NULL, NULL);
}
