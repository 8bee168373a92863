#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/cpu.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "kernels/lowbit.h"
#include "kernels/rows.h"
#include "kernels/weight.h"

enum { LEVELS = 4, CASES = 160, GUARD = 16 };

static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512,
                                        NYB_CPU_AVX2 | NYB_CPU_AVX512 | NYB_CPU_AVX512VNNI};

static bool has(unsigned level)
{
    return (nyb_cpu_detected() & level) == level;
}

static void shuffle(uint32_t *x, size_t n, uint64_t *seed)
{
    for (size_t i = n; i > 1; i--) {
        const size_t k = (size_t) nyb_random_below(seed, i);
        const uint32_t kept = x[i - 1];
        x[i - 1] = x[k];
        x[k] = kept;
    }
}

// One random weight with its packed form and an input.
typedef struct world {
    nyb_qweight q;
    nyb_lowbit m;
    float *x; // [cols]
    uint64_t seed;
} world;

// How the columns of a case go to its groups.
typedef enum order { PLAIN, SHUFFLED, ANY } order;

static void fill(world *w, bool symmetric, order how)
{
    static const nyb_dtype types[] = {NYB_F32, NYB_F16, NYB_BF16};
    nyb_qweight *const q = &w->q;
    const unsigned limit = 1u << q->bits;
    q->symmetric = symmetric;
    q->scale_dtype = types[nyb_random_below(&w->seed, 3)];
    for (size_t k = 0; k < q->rows * q->cols; k++)
        q->codes[k] = (uint8_t) nyb_random_below(&w->seed, limit);
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        const float scale = 0.01f + 0.1f * (float) nyb_random_unit(&w->seed);
        q->scales[k] = nyb_round_to(scale, q->scale_dtype);
        q->zeros[k] =
            (uint8_t) (symmetric ? limit / 2 : (unsigned) nyb_random_below(&w->seed, limit));
    }
    if (how == SHUFFLED)
        shuffle(q->group_of, q->cols, &w->seed);
    for (size_t j = 0; how == ANY && j < q->cols; j++)
        q->group_of[j] = (uint32_t) nyb_random_below(&w->seed, q->groups);
    q->irregular = how == SHUFFLED || how == ANY;
}

static void make(world *w, size_t rows, size_t cols, unsigned bits, size_t group, bool symmetric,
                 order how)
{
    assert_int_equal(nyb_qweight_init(&w->q, rows, cols, bits, group, NULL), NYB_OK);
    fill(w, symmetric, how);
    assert_int_equal(nyb_lowbit_init(&w->m, &w->q, NULL), NYB_OK);
    w->x = nyb_alloc(cols, sizeof(float));
    for (size_t j = 0; j < cols; j++)
        w->x[j] = test_uniform(&w->seed) * (j % 7 == 0 ? 10.0f : 1.0f);
}

static void clear(world *w)
{
    nyb_qweight_clear(&w->q);
    nyb_lowbit_clear(&w->m);
    nyb_free(w->x);
}

// Shapes that end inside tiles and units; groups of a few columns, of whole units, of all.
static void make_random(world *w, size_t index)
{
    static const unsigned bits[] = {2, 3, 4, 8};
    static const size_t groups[] = {0, 1, 5, 16, 32, 64, 128, 37};
    w->seed = 1000 + index;
    const size_t rows = 1 + (size_t) nyb_random_below(&w->seed, 70);
    const size_t cols = 1 + (size_t) nyb_random_below(&w->seed, index % 5 == 0 ? 1500 : 300);
    const size_t group = groups[nyb_random_below(&w->seed, 8)];
    make(w, rows, cols, bits[index % 4], group < cols ? group : 0, index % 3 == 0,
         (order) (index / 4 % 3));
}

static float weight(const nyb_qweight *q, size_t i, size_t j)
{
    const size_t at = i * q->groups + q->group_of[j];
    return q->scales[at] * (float) ((int) q->codes[i * q->cols + j] - (int) q->zeros[at]);
}

// ---- Products -----------------------------------------------------------------------------

// The input at one level, in memory of its own that the caller frees (nyb_free(input.steps)).
static nyb_lowbit_input input_of(const world *w, unsigned level, unsigned digits)
{
    void *const memory = nyb_alloc(nyb_lowbit_input_bytes(&w->m, digits), 1);
    return nyb_lowbit_ops_for(level)->input(&w->m, digits, memory, w->x);
}

static void free_input(const nyb_lowbit_input *input)
{
    nyb_free((void *) (uintptr_t) input->steps);
}

// Every level's product, cut into pieces as threads do it, is the portable one's bits.
static void check_levels(const world *w, unsigned digits, const float *want)
{
    const size_t rows = w->q.rows;
    for (size_t l = 1; l < LEVELS; l++) {
        if (!has(levels[l]))
            continue;
        float *const got = nyb_alloc(rows + GUARD, sizeof(float));
        const nyb_lowbit_input input = input_of(w, levels[l], digits);
        for (size_t i = 0; i < rows; i += 32)
            nyb_lowbit_ops_for(levels[l])->multiply(got + i, &w->m, i,
                                                    rows - i < 32 ? rows - i : 32, &input);
        assert_memory_equal(want, got, (rows + GUARD) * sizeof(float));
        free_input(&input);
        nyb_free(got);
    }
}

// The largest error of y against dequantise-then-multiply in f64, in parts of the terms' sum.
static double product_error(const float *y, const world *w)
{
    double worst = 0.0;
    for (size_t i = 0; i < w->q.rows; i++) {
        double want = 0.0, size = 1e-6;
        for (size_t j = 0; j < w->q.cols; j++) {
            const double term = (double) weight(&w->q, i, j) * (double) w->x[j];
            want += term;
            size += fabs(term);
        }
        worst = fmax(worst, fabs((double) y[i] - want) / size);
    }
    return worst;
}

static void products_are_those_of_the_weights(void **state)
{
    (void) state;
    double worst = 0.0;
    size_t orders = 0, zeros = 0;
    for (size_t c = 0; c < CASES; c++) {
        world w = {0};
        make_random(&w, c);
        float *const want = nyb_alloc(w.q.rows + GUARD, sizeof(float));
        const nyb_lowbit_input input = input_of(&w, 0, NYB_LOWBIT_FINE);
        nyb_lowbit_ops_for(0)->multiply(want, &w.m, 0, w.q.rows, &input);
        worst = fmax(worst, product_error(want, &w));
        check_levels(&w, NYB_LOWBIT_FINE, want);
        orders += w.m.order != NULL;
        zeros += w.m.zeros != NULL;
        free_input(&input);
        nyb_free(want);
        clear(&w);
    }
    print_message("products: %.2g of the terms' sum (bound 2e-6)\n", worst);
    assert_true(worst > 0.0 && worst < 2e-6);
    assert_true(orders > CASES / 4 && orders < CASES && zeros > CASES / 4 && zeros < CASES);
}

// What the integers and steps of the input say, with whole numbers summed as such.
static double exact_product(const world *w, const nyb_lowbit_input *input, size_t row, double *size)
{
    double total = 0.0;
    size_t r = 0;
    *size = 1e-9;
    for (size_t g = 0; g < w->q.groups; g++) {
        const size_t at = row * w->q.groups + g, end = w->m.first[g + 1];
        for (size_t p = w->m.first[g]; p < end; r++) {
            int64_t sum = 0;
            for (const size_t stop = end - p < 256 ? end : p + 256; p < stop; p++) {
                const size_t j = w->m.order ? w->m.order[p] : p;
                int64_t value = 0;
                for (unsigned d = input->digits; d-- > 0;)
                    value = value * 256 + input->values[p / 4 * 4 * input->digits + 4 * d + p % 4];
                assert_true(j < w->q.cols || value == 0);
                if (j < w->q.cols)
                    sum += ((int) w->q.codes[row * w->q.cols + j] - (int) w->q.zeros[at]) * value;
            }
            const double part = (double) w->q.scales[at] * (double) input->steps[r] * (double) sum;
            total += part;
            *size += fabs(part);
        }
    }
    assert_int_equal(r, w->m.runs);
    return total;
}

static void byte_inputs_are_summed_exactly(void **state)
{
    (void) state;
    double worst = 0.0;
    for (size_t c = 0; c < CASES; c++) {
        world w = {0};
        make_random(&w, c);
        float *const want = nyb_alloc(w.q.rows + GUARD, sizeof(float));
        const nyb_lowbit_input input = input_of(&w, 0, NYB_LOWBIT_COARSE);
        nyb_lowbit_ops_for(0)->multiply(want, &w.m, 0, w.q.rows, &input);
        for (size_t i = 0; i < w.q.rows; i++) {
            double size = 0.0;
            const double exact = exact_product(&w, &input, i, &size);
            // One rounding for each run's scale, its product and the total.
            worst = fmax(worst, fabs((double) want[i] - exact) / size);
        }
        check_levels(&w, NYB_LOWBIT_COARSE, want);
        free_input(&input);
        nyb_free(want);
        clear(&w);
    }
    print_message("inputs of one byte: %.2g of the runs' sum (bound 3e-6)\n", worst);
    assert_true(worst > 0.0 && worst < 3e-6);
}

// The rounded input is within half a step of x, and its sums are right.
static void check_input(const world *w, unsigned digits)
{
    const nyb_lowbit_input input = input_of(w, 0, digits);
    size_t r = 0;
    for (size_t g = 0; g < w->q.groups; g++) {
        for (size_t p = w->m.first[g]; p < w->m.first[g + 1]; r++) {
            int32_t sums[3] = {0};
            const size_t end = w->m.first[g + 1];
            for (const size_t stop = end - p < 256 ? end : p + 256; p < stop; p++) {
                const size_t j = w->m.order ? w->m.order[p] : p;
                double value = 0.0;
                for (unsigned d = digits; d-- > 0;) {
                    const int8_t digit = input.values[p / 4 * 4 * digits + 4 * d + p % 4];
                    value = value * 256.0 + digit;
                    sums[d] += digit;
                }
                assert_near((double) input.steps[r] * value, j < w->q.cols ? (double) w->x[j] : 0.0,
                            (digits == 3 ? 1.3 : 0.50001) * (double) input.steps[r] + 1e-30);
            }
            assert_memory_equal(sums, input.sums + r * digits, digits * sizeof(int32_t));
        }
    }
    free_input(&input);
}

static void inputs_are_rounded_to_the_nearest(void **state)
{
    (void) state;
    for (size_t c = 0; c < CASES; c++) {
        world w = {0};
        make_random(&w, c);
        for (size_t j = 0; c % 10 < 2 && j < w.q.cols; j++)
            w.x[j] *= c % 10 ? 1e-41f : 0.0f;
        check_input(&w, NYB_LOWBIT_FINE);
        check_input(&w, NYB_LOWBIT_COARSE);
        clear(&w);
    }
}

// A number that is none does not become one.
static void wild_inputs_stay_wild(void **state)
{
    (void) state;
    for (size_t c = 0; c < 40; c++) {
        world w = {0};
        make_random(&w, c);
        w.x[w.q.cols / 2] = c % 2 ? NAN : INFINITY;
        const nyb_lowbit_input input = input_of(&w, 0, NYB_LOWBIT_FINE);
        float *const y = nyb_alloc(w.q.rows + GUARD, sizeof(float));
        nyb_lowbit_ops_for(0)->multiply(y, &w.m, 0, w.q.rows, &input);
        for (size_t i = 0; i < w.q.rows; i++)
            assert_true(!isfinite(y[i]));
        free_input(&input);
        nyb_free(y);
        clear(&w);
    }
}

// ---- The weights themselves ---------------------------------------------------------------

static void dequantised_weights_are_the_same(void **state)
{
    (void) state;
    for (size_t c = 0; c < CASES; c++) {
        world w = {0};
        make_random(&w, c);
        const size_t stride = w.q.rows + 3;
        float *const got = nyb_alloc(w.q.cols * stride + GUARD, sizeof(float));
        for (size_t l = 0; l < LEVELS; l++) {
            if (!has(levels[l]))
                continue;
            for (size_t k = 0; k < w.q.cols * stride + GUARD; k++)
                got[k] = -77.0f;
            nyb_lowbit_ops_for(levels[l])->dequantize(got, stride, &w.m, 0, w.q.rows);
            for (size_t k = 0; k < w.q.cols * stride + GUARD; k++) {
                const size_t j = k / stride, i = k % stride;
                const float want = j < w.q.cols && i < w.q.rows ? weight(&w.q, i, j) : -77.0f;
                if (memcmp(&got[k], &want, sizeof(want)) != 0)
                    fail_msg("level %zu case %zu: (%zu, %zu) is %g, want %g", l, c, i, j,
                             (double) got[k], (double) want);
            }
        }
        nyb_free(got);
        clear(&w);
    }
}

// A layer of common shape takes what it takes in a file, and never more than was announced.
static void packed_layers_stay_packed(void **state)
{
    (void) state;
    static const unsigned bits[] = {2, 3, 4, 8};
    for (size_t b = 0; b < 4; b++) {
        world w = {.seed = 5};
        make(&w, 96, 512, bits[b], 64, true, PLAIN);
        w.q.scale_dtype = NYB_BF16;
        for (size_t k = 0; k < w.q.rows * w.q.groups; k++)
            w.q.scales[k] = nyb_round_to(w.q.scales[k], NYB_BF16);
        nyb_lowbit_clear(&w.m);
        assert_int_equal(nyb_lowbit_init(&w.m, &w.q, NULL), NYB_OK);
        const size_t packed = 96 * 512 * bits[b] / 8 + 96 * 8 * 2;
        assert_true(w.m.bytes >= packed && w.m.bytes <= packed + 128);
        clear(&w);
    }
    for (size_t c = 0; c < CASES; c++) {
        world w = {0};
        make_random(&w, c);
        const size_t group = w.q.groups == 1 ? 0 : w.q.group_size;
        assert_true(w.m.bytes <= nyb_lowbit_bytes(w.q.rows, w.q.cols, w.q.bits, group));
        clear(&w);
    }
    assert_int_equal(nyb_lowbit_bytes(SIZE_MAX / 4, 4096, 4, 64), SIZE_MAX);
}

// ---- Floats as they lie in a file ---------------------------------------------------------

static void float_rows(nyb_dtype dtype, size_t rows, size_t cols, uint64_t *seed, double *worst)
{
    const size_t size = nyb_dtype_bytes(dtype), count = rows * cols;
    unsigned char *const memory = nyb_alloc(count * size + 1, 1), *const at = memory + 1;
    float *const w = nyb_alloc(count, sizeof(float)), *const x = nyb_alloc(cols, sizeof(float));
    float *const want = nyb_alloc(rows + GUARD, sizeof(float));
    float *const got = nyb_alloc(rows + GUARD, sizeof(float));
    float *const wide = nyb_alloc(count, sizeof(float));
    for (size_t k = 0; k < count; k++) // some subnormal in f16
        w[k] = nyb_round_to(test_uniform(seed) * (k % 9 ? 1.0f : 1e-6f), dtype);
    for (size_t j = 0; j < cols; j++)
        x[j] = test_uniform(seed);
    nyb_narrow(at, dtype, w, count);
    nyb_rows_ops_for(0)->multiply(want, at, dtype, rows, cols, x);
    for (size_t i = 0; i < rows; i++) {
        double exact = 0.0, terms = 1e-9;
        for (size_t j = 0; j < cols; j++) {
            exact += (double) w[i * cols + j] * (double) x[j];
            terms += fabs((double) w[i * cols + j] * (double) x[j]);
        }
        *worst = fmax(*worst, fabs((double) want[i] - exact) / terms);
    }
    for (size_t l = 0; l < LEVELS - 1; l++) {
        if (!has(levels[l]))
            continue;
        const nyb_rows_ops *const ops = nyb_rows_ops_for(levels[l]);
        ops->multiply(got, at, dtype, rows, cols, x);
        assert_memory_equal(want, got, (rows + GUARD) * sizeof(float));
        ops->widen(wide, at, dtype, count);
        assert_memory_equal(wide, w, count * sizeof(float));
        assert_int_equal(ops->first_not_finite(at, dtype, count), count);
        const size_t bad = (size_t) nyb_random_below(seed, count);
        const float wild = l ? INFINITY : NAN;
        nyb_narrow(at + bad * size, dtype, &wild, 1);
        assert_int_equal(ops->first_not_finite(at, dtype, count), bad);
        nyb_narrow(at + bad * size, dtype, &w[bad], 1);
    }
    nyb_free(memory);
    nyb_free(w);
    nyb_free(x);
    nyb_free(want);
    nyb_free(got);
    nyb_free(wide);
}

static void float_rows_are_multiplied_as_they_lie(void **state)
{
    (void) state;
    static const nyb_dtype types[] = {NYB_F32, NYB_F16, NYB_BF16};
    static const size_t shapes[][2] = {{1, 1},  {3, 15},  {4, 16},   {5, 31},   {9, 33},
                                       {7, 64}, {6, 577}, {2, 4100}, {5, 9000}, {70, 200}};
    uint64_t seed = 8;
    double worst = 0.0;
    for (size_t t = 0; t < 3; t++) {
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
            float_rows(types[t], shapes[s][0], shapes[s][1], &seed, &worst);
    }
    print_message("float rows: %.2g of the terms' sum (bound 2e-6)\n", worst);
    assert_true(worst > 0.0 && worst < 2e-6);
}

// ---- Weights -----------------------------------------------------------------------------

// Products of several vectors go by panels: row by row they are those of one vector.
static void panels_give_the_products_of_vectors(void **state)
{
    (void) state;
    enum { TOKENS = 5 };
    double worst = 0.0;
    for (size_t c = 0; c < 40; c++) {
        world w = {0};
        make_random(&w, c);
        const size_t rows = w.q.rows, cols = w.q.cols;
        const nyb_weight codes = {.rows = rows, .cols = cols, .codes = &w.m};
        float *const wide = nyb_alloc(rows * cols, sizeof(float));
        nyb_qweight_dequantize(&w.q, 0, nyb_mat_of(wide, rows, cols));
        const nyb_weight floats = {.rows = rows, .cols = cols, .at = wide, .dtype = NYB_F32};
        const nyb_weight *const both[] = {&codes, &floats};
        float *const in = nyb_alloc(TOKENS * cols, sizeof(float));
        float *const out = nyb_alloc(TOKENS * rows, sizeof(float));
        float *const panel = nyb_alloc(NYB_WEIGHT_PANEL * cols, sizeof(float));
        for (size_t k = 0; k < TOKENS * cols; k++)
            in[k] = w.x[k % cols] * (1.0f + (float) (k / cols));
        for (size_t b = 0; b < 2; b++) {
            void *const memory = nyb_alloc(nyb_weight_input_bytes(both[b]), 1);
            float *const y = nyb_alloc(rows, sizeof(float));
            const nyb_weight_input input = nyb_weight_input_make(both[b], memory, w.x);
            nyb_weight_multiply_one(y, both[b], 0, rows, &input);
            worst = fmax(worst, product_error(y, &w));
            for (size_t k = 0; k < TOKENS * rows; k++)
                out[k] = 1.0f;
            nyb_weight_multiply(nyb_mat_of(out, TOKENS, rows), nyb_mat_of(in, TOKENS, cols),
                                both[b], 0, 1.0f, panel);
            for (size_t t = 0; t < TOKENS; t++) {
                for (size_t i = 0; i < rows; i++)
                    y[i] = (out[t * rows + i] - 1.0f) / (1.0f + (float) t);
                worst = fmax(worst, product_error(y, &w) * 0.5); // the 1 costs digits
            }
            nyb_free(memory);
            nyb_free(y);
        }
        nyb_free(wide);
        nyb_free(in);
        nyb_free(out);
        nyb_free(panel);
        clear(&w);
    }
    print_message("panels: %.2g of the terms' sum (bound 1e-5)\n", worst);
    assert_true(worst > 0.0 && worst < 1e-5);
}

// Pieces that begin inside a tile are those of the whole, and packed panels are what packing the
// dequantised weight gives.
static void pieces_may_begin_anywhere(void **state)
{
    (void) state;
    static const unsigned cpus[] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512};
    for (size_t c = 0; c < 60; c++) {
        world w = {0};
        make_random(&w, c);
        const size_t rows = w.q.rows, cols = w.q.cols;
        const size_t first = (size_t) nyb_random_below(&w.seed, rows), count = rows - first;
        const nyb_weight weight = {.rows = rows, .cols = cols, .codes = &w.m};
        const nyb_weight_rows some = {&weight, first, count};
        void *const memory = nyb_alloc(nyb_weight_input_bytes(&weight), 1);
        float *const y = nyb_alloc(rows, sizeof(float)), *const z = nyb_alloc(rows, sizeof(float));
        float *const panel = nyb_alloc(NYB_WEIGHT_PANEL * cols, sizeof(float));
        float *const wide = nyb_alloc(rows * cols, sizeof(float));
        const nyb_weight_input input = nyb_weight_input_make(&weight, memory, w.x);
        nyb_weight_multiply_one(y, &weight, 0, rows, &input);
        nyb_weight_multiply_one(z + first, &weight, first, count, &input);
        assert_memory_equal(y + first, z + first, count * sizeof(float));
        nyb_qweight_dequantize(&w.q, 0, nyb_mat_of(wide, rows, cols));
        const nyb_operand from = nyb_operand_of(nyb_mat_of(wide + first * cols, count, cols));
        for (size_t l = 0; l < sizeof(cpus) / sizeof(cpus[0]); l++) {
            if (!has(cpus[l]))
                continue;
            const nyb_gemm *const g = nyb_gemm_for(NYB_COMPUTE_F32, cpus[l]);
            const size_t panels = nyb_gemm_panels(count, g->width), middle = panels / 2;
            const size_t words = nyb_gemm_packed(g, count, cols);
            uint32_t *const want = nyb_alloc(words, 4), *const got = nyb_alloc(words, 4);
            nyb_gemm_pack(g, want, &from, 0, panels);
            nyb_weight_pack(g, got, &some, 0, middle, panel);
            nyb_weight_pack(g, got, &some, middle, panels, panel);
            assert_memory_equal(want, got, words * 4);
            nyb_free(want);
            nyb_free(got);
        }
        nyb_free(memory);
        nyb_free(y);
        nyb_free(z);
        nyb_free(panel);
        nyb_free(wide);
        clear(&w);
    }
}

// ---- Inputs of bytes ------------------------------------------------------------------------

enum { BYTE_INPUTS = 3 };

// The same in 64-bit whole numbers, group by group, and the documented operations in f32.
static float whole_product(const nyb_qweight *q, size_t i, const int8_t *x, float step)
{
    static int64_t sums[1500];
    float total = 0.0f;
    memset(sums, 0, q->groups * sizeof(*sums));
    for (size_t j = 0; j < q->cols; j++) {
        const size_t g = q->group_of[j];
        sums[g] += ((int64_t) q->codes[i * q->cols + j] - q->zeros[i * q->groups + g]) * x[j];
    }
    for (size_t g = 0; g < q->groups; g++)
        total += q->scales[i * q->groups + g] * (float) sums[g];
    return total * step;
}

static void check_bytes(const world *w, const int8_t *x, const float *steps)
{
    const size_t rows = w->q.rows;
    void *const memory = nyb_alloc(nyb_lowbit_int8_bytes(&w->m, BYTE_INPUTS), 1);
    const nyb_lowbit_int8 input = nyb_lowbit_int8_input(&w->m, BYTE_INPUTS, x, steps, memory);
    for (size_t l = 0; l < LEVELS; l++) {
        if (!has(levels[l]))
            continue;
        const nyb_mat y =
            nyb_mat_of(nyb_alloc(BYTE_INPUTS * rows + GUARD, sizeof(float)), BYTE_INPUTS, rows);
        for (size_t i = 0; i < rows; i += 32)
            nyb_lowbit_ops_for(levels[l])->multiply_int8(
                nyb_block(y, 0, BYTE_INPUTS, i, rows - i < 32 ? rows : i + 32), &w->m, i, &input);
        for (size_t t = 0; t < BYTE_INPUTS; t++)
            for (size_t i = 0; i < rows; i++)
                assert_true(nyb_row(y, t)[i] ==
                            whole_product(&w->q, i, x + t * w->q.cols, steps[t]));
        for (size_t k = 0; k < GUARD; k++)
            assert_true(y.at[BYTE_INPUTS * rows + k] == 0.0f);
        nyb_free(y.at);
    }
    nyb_free(memory);
}

// At every level, to the last bit; and at the ends of what 32 bits hold.
static void products_with_bytes_are_sums_of_whole_numbers(void **state)
{
    static const float steps[BYTE_INPUTS] = {0.01f, 1.0f, 3e-5f};
    (void) state;
    for (size_t c = 0; c <= CASES; c++) {
        world w;
        if (c < CASES) {
            make_random(&w, c);
        } else {
            w.seed = 1;
            make(&w, 2, NYB_LOWBIT_INT8_COLS, 8, 0, false, PLAIN);
            memset(w.q.codes, 255, 2 * NYB_LOWBIT_INT8_COLS);
            memset(w.q.zeros, 0, 2);
            nyb_lowbit_clear(&w.m);
            assert_int_equal(nyb_lowbit_init(&w.m, &w.q, NULL), NYB_OK);
        }
        int8_t *const x = nyb_alloc(BYTE_INPUTS, w.q.cols);
        for (size_t k = 0; k < BYTE_INPUTS * w.q.cols; k++)
            x[k] = c < CASES            ? (int8_t) ((int) nyb_random_below(&w.seed, 255) - 127)
                   : (k / w.q.cols) % 2 ? -127
                                        : 127;
        check_bytes(&w, x, steps);
        nyb_free(x);
        clear(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_those_of_the_weights),
        cmocka_unit_test(byte_inputs_are_summed_exactly),
        cmocka_unit_test(inputs_are_rounded_to_the_nearest),
        cmocka_unit_test(wild_inputs_stay_wild),
        cmocka_unit_test(dequantised_weights_are_the_same),
        cmocka_unit_test(packed_layers_stay_packed),
        cmocka_unit_test(float_rows_are_multiplied_as_they_lie),
        cmocka_unit_test(panels_give_the_products_of_vectors),
        cmocka_unit_test(pieces_may_begin_anywhere),
        cmocka_unit_test(products_with_bytes_are_sums_of_whole_numbers),
    };
    return cmocka_run_group_tests_name("lowbit", tests, NULL, NULL);
}
