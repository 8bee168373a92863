#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "kernels/gemm.h"

enum { LEVELS = 4, CASES = 25, MOST = 300 };

static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512,
                                        NYB_CPU_AVX2 | NYB_CPU_AVX512 | NYB_CPU_AVX512VNNI |
                                            NYB_CPU_AVX512BF16};

// A random matrix in memory of its own size to the byte, so that reading outside it is found.
typedef struct source {
    nyb_operand operand;
    void *memory;
    double *values; // [rows, depth] as they take part in the product
} source;

static size_t pick(uint64_t *seed, size_t most)
{
    const size_t n = 1 + (size_t) (nyb_random_unit(seed) * (double) most);
    return n > most ? most : n;
}

static source make(size_t rows, size_t depth, nyb_compute compute, uint64_t *seed)
{
    const bool down = nyb_random_unit(seed) < 0.5, half = nyb_random_unit(seed) < 0.5;
    const size_t lines = down ? depth : rows, length = down ? rows : depth;
    const size_t stride = length + (nyb_random_unit(seed) < 0.5 ? 0 : pick(seed, 9));
    const size_t count = (lines - 1) * stride + length;
    source s = {.memory = nyb_alloc(count, half ? 2 : 4),
                .values = nyb_alloc(rows * depth, sizeof(double))};
    assert_non_null(s.memory);
    assert_non_null(s.values);
    for (size_t i = 0; i < count; i++) {
        const float value = test_uniform(seed);
        const uint16_t rounded = nyb_bf16_of_f32(value);
        if (half)
            ((uint16_t *) s.memory)[i] = rounded;
        else
            ((float *) s.memory)[i] = value;
        if (i % stride >= length)
            continue;
        const size_t row = down ? i % stride : i / stride, k = down ? i / stride : i % stride;
        s.values[row * depth + k] =
            (double) (half || compute == NYB_COMPUTE_BF16 ? nyb_f32_of_bf16(rounded) : value);
    }
    s.operand = (nyb_operand){.at = s.memory,
                              .dtype = half ? NYB_BF16 : NYB_F32,
                              .rows = rows,
                              .depth = depth,
                              .stride = stride,
                              .down = down};
    return s;
}

static void drop(source *s)
{
    nyb_free(s->memory);
    nyb_free(s->values);
}

// The largest error of got over what f32 sums of that length may lose.
static double worst_error(nyb_mat got, const float *before, const source *a, const source *b,
                          float alpha, bool add, bool upper)
{
    double worst = 0.0;
    const size_t depth = a->operand.depth;
    for (size_t i = 0; i < got.rows; i++) {
        for (size_t j = 0; j < got.stride; j++) {
            const float value = nyb_row(got, i)[j], was = before[i * got.stride + j];
            if (j >= got.cols || (upper && j < i)) {
                assert_true(value == was);
                continue;
            }
            double sum = 0.0, size = 0.0;
            for (size_t k = 0; k < depth; k++) {
                const double term = a->values[i * depth + k] * b->values[j * depth + k];
                sum += term;
                size += fabs(term);
            }
            const double want = (add ? (double) was : 0.0) + (double) alpha * sum;
            const double bound =
                (double) FLT_EPSILON *
                ((double) depth * fabs((double) alpha) * size + fabs(want) + 1e-30);
            worst = fmax(worst, fabs((double) value - want) / bound);
        }
    }
    return worst;
}

typedef struct outcome {
    double gemm, syrk, cross;
} outcome;

// Both sums of one call: the first has the bits that it has alone, which lie in `alone`.
static void try_cross(const nyb_context *ctx, const nyb_gemm *g, nyb_mat alone, const float *before,
                      const source *x, const source *d, uint32_t *scratch, outcome *worst)
{
    const size_t count = alone.rows * alone.stride;
    float *const c = nyb_alloc(count, 4), *const cross = nyb_alloc(count, 4);
    nyb_mat square = alone, other = alone;
    square.at = c;
    other.at = cross;
    memcpy(c, before, count * 4);
    memcpy(cross, before, count * 4);
    nyb_syrk_cross_run(ctx, g, square, other, &x->operand, &d->operand, scratch);
    assert_memory_equal(c, alone.at, count * 4);
    worst->cross = fmax(worst->cross, worst_error(other, before, x, d, 1.0f, true, false));
    nyb_free(c);
    nyb_free(cross);
}

// One product and one symmetric update of random shapes, on 1 to 4 threads.
static void try_case(const nyb_gemm *g, nyb_compute compute, uint64_t *seed, outcome *worst)
{
    const size_t most = nyb_random_unit(seed) < 0.2 ? MOST : 70;
    const size_t m = pick(seed, most), n = pick(seed, most);
    const size_t depth = pick(seed, nyb_random_unit(seed) < 0.1 ? 1200 : most);
    const size_t stride = (m > n ? m : n) + pick(seed, 5);
    const float alpha = nyb_random_unit(seed) < 0.5 ? 1.0f : test_uniform(seed);
    const bool add = nyb_random_unit(seed) < 0.5;
    source a = make(m, depth, compute, seed), b = make(n, depth, compute, seed);
    source d = make(m, depth, compute, seed);
    const size_t count = (m > n ? m : n) * stride, words = nyb_gemm_run_words(g, m, m + n, depth);
    float *const before = nyb_alloc(count, 4), *const c = nyb_alloc(count, 4);
    float *const first = nyb_alloc(count, 4);
    uint32_t *const scratch = nyb_alloc(words, 4);
    for (size_t i = 0; i < count; i++)
        before[i] = test_uniform(seed);

    for (unsigned threads = 1; threads <= 4; threads++) {
        const nyb_context ctx = {.threads = threads};
        const nyb_mat full = {.at = c, .rows = m, .cols = n, .stride = stride};
        const nyb_mat square = {.at = c, .rows = m, .cols = m, .stride = stride};
        memset(scratch, 0xff, words * 4);
        memcpy(c, before, count * 4);
        nyb_gemm_run(&ctx, g, full, &a.operand, &b.operand, alpha, add, scratch);
        if (threads == 1)
            worst->gemm = fmax(worst->gemm, worst_error(full, before, &a, &b, alpha, add, false));
        else
            assert_memory_equal(c, first, m * stride * 4);
        memcpy(first, c, count * 4);
        memcpy(c, before, count * 4);
        nyb_syrk_run(&ctx, g, square, &a.operand, scratch);
        if (threads == 1)
            worst->syrk = fmax(worst->syrk, worst_error(square, before, &a, &a, 1.0f, true, true));
        try_cross(&ctx, g, square, before, &a, &d, scratch, worst);
    }
    drop(&a);
    drop(&b);
    drop(&d);
    nyb_free(before);
    nyb_free(c);
    nyb_free(first);
    nyb_free(scratch);
}

static void products_are_within_rounding(void **state)
{
    (void) state;
    size_t tried = 0;
    for (size_t l = 0; l < LEVELS; l++) {
        if (levels[l] & ~nyb_cpu_detected()) {
            print_message("%s is not on this CPU\n", nyb_cpu_level(levels[l]));
            continue;
        }
        for (nyb_compute compute = NYB_COMPUTE_F32; compute <= NYB_COMPUTE_BF16; compute++) {
            uint64_t seed = 11;
            outcome worst = {0};
            for (int i = 0; i < CASES; i++, tried++)
                try_case(nyb_gemm_for(compute, levels[l]), compute, &seed, &worst);
            print_message("%s %s: gemm %.3f, syrk %.3f, cross %.3f of the bound of f32 sums\n",
                          nyb_cpu_level(levels[l]), compute == NYB_COMPUTE_F32 ? "f32" : "bf16",
                          worst.gemm, worst.syrk, worst.cross);
            assert_true(worst.gemm > 0.0 && worst.gemm < 1.0);
            assert_true(worst.syrk > 0.0 && worst.syrk < 1.0);
            assert_true(worst.cross > 0.0 && worst.cross < 1.0);
        }
    }
    assert_true(tried >= 2 * (size_t) CASES);
}

// A NaN or an infinity anywhere in an operand is still there in the product.
static void bad_numbers_stay_bad(void **state)
{
    (void) state;
    enum { N = 37 };
    static float x[N * N], c[N * N];
    static uint32_t scratch[8 * (N + 32) * N];
    for (size_t l = 0; l < LEVELS; l++) {
        if (levels[l] & ~nyb_cpu_detected())
            continue;
        for (size_t i = 0; i < 2 * (size_t) N; i++) {
            const nyb_gemm *const g =
                nyb_gemm_for(i % 2 ? NYB_COMPUTE_BF16 : NYB_COMPUTE_F32, levels[l]);
            const uint32_t bad[3] = {0x7fffffff, 0x7f800001, 0x7f800000};
            for (size_t k = 0; k < (size_t) N * N; k++)
                x[k] = 1.0f;
            memset(c, 0, sizeof(c));
            const size_t at = (i * 53) % ((size_t) N * N);
            x[at] = nyb_f32_of_bits(bad[i % 3]);
            const nyb_mat m = nyb_mat_of(x, N, N);
            const nyb_operand operand = i % 4 < 2 ? nyb_operand_of(m) : nyb_operand_turned(m);
            assert_true(nyb_gemm_run_words(g, N, N, N) <= sizeof(scratch) / 4);
            nyb_syrk_run(NULL, g, nyb_mat_of(c, N, N), &operand, scratch);
            const size_t row = operand.down ? at % N : at / N;
            assert_true(!isfinite(c[row * N + row]));
        }
    }
}

// Batches cut at whole sums give the bits of one batch.
static void sums_can_be_cut(void **state)
{
    (void) state;
    enum { N = 50, CUT = 512, T = 2 * CUT + 100 };
    static float x[T * N], whole[N * N], parts[N * N];
    static uint32_t scratch[3 * (N + 32) * T];
    uint64_t seed = 4;
    for (size_t i = 0; i < (size_t) T * N; i++)
        x[i] = test_uniform(&seed);
    for (nyb_compute compute = NYB_COMPUTE_F32; compute <= NYB_COMPUTE_BF16; compute++) {
        const nyb_gemm *const g = nyb_gemm_get(compute);
        const nyb_operand all = nyb_operand_turned(nyb_mat_of(x, T, N));
        memset(whole, 0, sizeof(whole));
        memset(parts, 0, sizeof(parts));
        assert_true(nyb_gemm_run_words(g, N, N, T) <= sizeof(scratch) / 4);
        nyb_syrk_run(NULL, g, nyb_mat_of(whole, N, N), &all, scratch);
        for (size_t t = 0; t < T; t += CUT) {
            const size_t rows = T - t < CUT ? T - t : CUT;
            const nyb_operand part = nyb_operand_turned(nyb_mat_of(x + t * N, rows, N));
            nyb_syrk_run(NULL, g, nyb_mat_of(parts, N, N), &part, scratch);
        }
        assert_true(whole[1] != 0.0f);
        assert_memory_equal(whole, parts, sizeof(whole));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_within_rounding),
        cmocka_unit_test(bad_numbers_stay_bad),
        cmocka_unit_test(sums_can_be_cut),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
