#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/cpu.h"
#include "kernels/codes.h"

enum { ROWS = NYB_CODE_ROWS, MOST = 70, GUARD = 16, LEVELS = 3 };

static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512};

// A block of columns on a grid, with guard values behind its lines.
typedef struct fixture {
    float h[MOST * MOST], values[MOST * ROWS], weights[MOST];
    float steps[MOST * ROWS + GUARD], slopes[MOST * ROWS + GUARD], moved[MOST * ROWS + GUARD];
    float scale[ROWS], low[ROWS], high[ROWS];
} fixture;

static void make(fixture *f, size_t cols, uint64_t *seed)
{
    memset(f, 0x5a, sizeof(*f));
    for (size_t row = 0; row < ROWS; row++) {
        f->scale[row] = 0.6f + 0.5f * test_uniform(seed);
        f->low[row] = (float) -(int) nyb_random_below(seed, 8);
        f->high[row] = f->low[row] + 7.0f;
    }
    for (size_t i = 0; i < cols; i++) {
        f->weights[i] = 1.5f + test_uniform(seed);
        for (size_t j = 0; j <= i; j++)
            f->h[i * cols + j] = f->h[j * cols + i] = test_uniform(seed);
        f->h[i * cols + i] = i % 11 == 5 ? 0.0f : 6.0f + test_uniform(seed);
        for (size_t row = 0; row < ROWS; row++) {
            f->values[i * ROWS + row] = 9.0f * test_uniform(seed);
            f->steps[i * ROWS + row] = f->low[row] + (float) nyb_random_below(seed, 8);
            f->slopes[i * ROWS + row] = 9.0f * test_uniform(seed);
            f->moved[i * ROWS + row] = test_uniform(seed);
        }
    }
}

static nyb_code_grid grid_of(const fixture *f)
{
    return (nyb_code_grid){f->scale, f->low, f->high};
}

static void descend(const nyb_code_ops *ops, fixture *f, size_t cols, size_t first, size_t end)
{
    ops->descend(&(nyb_descent){.h = f->h,
                                .cols = cols,
                                .first = first,
                                .end = end,
                                .steps = f->steps,
                                .slopes = f->slopes,
                                .moved = f->moved,
                                .grid = grid_of(f)});
}

static fixture want, got; // large

static void levels_give_the_same_bits(void **state)
{
    uint64_t seed = 5;
    (void) state;
    for (size_t l = 1; l < LEVELS; l++) {
        if ((nyb_cpu_detected() & levels[l]) != levels[l]) {
            print_message("level %zu is not on this CPU\n", l);
            continue;
        }
        const nyb_code_ops *const ref = nyb_code_ops_for(0), *const ops =
                                                                 nyb_code_ops_for(levels[l]);
        for (size_t cols = 1; cols <= MOST; cols++) {
            double a[ROWS], b[ROWS];
            make(&want, cols, &seed);
            got = want;
            const nyb_code_grid grid = grid_of(&want);
            const float *const weights = cols % 3 ? want.weights : NULL;
            ref->distance(a, want.values, weights, cols, &grid);
            ops->distance(b, want.values, weights, cols, &grid);
            assert_memory_equal(a, b, sizeof(a));
            descend(ref, &want, cols, cols / 3, cols);
            descend(ops, &got, cols, cols / 3, cols);
            assert_memory_equal(&want, &got, sizeof(want));
        }
    }
}

enum { MOVES = 5 * NYB_MOVE_COLS };

// A row in which every third column can only be moved one way, some not at all, and some cost the
// same.
typedef struct move_row {
    float slopes[MOVES + GUARD], h[MOVES], twice[MOVES], cost[MOVES];
} move_row;

static nyb_moves make_row(move_row *r, size_t cols, uint64_t *seed)
{
    memset(r, 0x5a, sizeof(*r));
    for (size_t j = 0; j < cols; j++) {
        r->slopes[j] = 0.25f * (float) ((int) nyb_random_below(seed, 41) - 20);
        r->h[j] = 0.25f * (float) ((int) nyb_random_below(seed, 41) - 20);
        r->twice[j] = nyb_random_below(seed, 2) ? 1.0f : -1.0f;
        r->cost[j] = j % 7 == 3 ? 1e30f : (float) (1 + nyb_random_below(seed, 4));
        r->cost[j] *= j % 3 ? 1.0f : -1.0f;
    }
    return (nyb_moves){cols, r->slopes, r->twice, r->cost};
}

// On numbers that f32 holds exactly.
static void moves_are_the_first_that_cost_least(void **state)
{
    static move_row told, made;
    uint64_t seed = 9;
    unsigned tried = 0;
    (void) state;
    for (unsigned trial = 0; trial < 300; trial++) {
        const size_t l = trial % LEVELS, cols = NYB_MOVE_COLS * (1 + trial / LEVELS % 5);
        if ((nyb_cpu_detected() & levels[l]) != levels[l])
            continue;
        const nyb_moves moves = make_row(&made, cols, &seed);
        const float by = 0.5f * (float) ((int) nyb_random_below(&seed, 5) - 2);
        float least = INFINITY, change = 0.0f;
        size_t first = 0;
        told = made;
        for (size_t j = 0; j < cols; j++) {
            told.slopes[j] += by * told.h[j];
            const float pull = told.twice[j] * told.slopes[j];
            const float cost = fabsf(told.cost[j]) - (j % 3 ? fabsf(pull) : pull);
            first = cost < least ? j : first;
            least = fminf(cost, least);
        }
        assert_int_equal(nyb_code_ops_for(levels[l])->move(&moves, made.h, by, made.h, &change),
                         first);
        assert_true(change == least);
        assert_memory_equal(&told, &made, sizeof(told));
        tried++;
    }
    assert_true(tried >= 100);
}

// Any number of rows, in the order in which they are given.
static void rows_are_added_one_after_the_other(void **state)
{
    enum { MOST_ROWS = 11 };
    static float rows[MOST_ROWS][MOVES], told[MOVES + GUARD], made[MOVES + GUARD];
    uint64_t seed = 10;
    (void) state;
    for (size_t l = 0; l < LEVELS; l++) {
        if ((nyb_cpu_detected() & levels[l]) != levels[l])
            continue;
        for (size_t count = 0; count <= MOST_ROWS; count++) {
            const size_t cols = NYB_MOVE_COLS * (1 + count % 5);
            const float *lines[MOST_ROWS];
            float by[MOST_ROWS];
            for (size_t j = 0; j < MOVES + GUARD; j++)
                told[j] = made[j] = test_uniform(&seed);
            for (size_t i = 0; i < count; i++) {
                by[i] = test_uniform(&seed);
                lines[i] = rows[(i * 3 + 1) % MOST_ROWS];
                for (size_t j = 0; j < MOVES; j++)
                    rows[(i * 3 + 1) % MOST_ROWS][j] = test_uniform(&seed);
            }
            for (size_t i = 0; i < count; i++) {
                for (size_t j = 0; j < cols; j++)
                    told[j] += by[i] * lines[i][j];
            }
            nyb_code_ops_for(levels[l])->add_rows(made, cols, lines, by, count);
            assert_memory_equal(told, made, sizeof(told));
        }
    }
}

static void lines_are_turned(void **state)
{
    enum { N = NYB_CODE_TURN, WIDE = N + 3, WIDER = N + 7 };
    float from[N * WIDE], to[N * WIDER];
    (void) state;
    for (size_t i = 0; i < N * WIDE; i++)
        from[i] = (float) i;
    for (size_t l = 0; l < LEVELS; l++) {
        if ((nyb_cpu_detected() & levels[l]) != levels[l])
            continue;
        for (size_t i = 0; i < N * WIDER; i++)
            to[i] = -1.0f;
        nyb_code_ops_for(levels[l])->turn(to, WIDER, from, WIDE);
        for (size_t j = 0; j < N; j++) {
            for (size_t i = 0; i < WIDER; i++)
                assert_true(to[j * WIDER + i] == (i < N ? from[i * WIDE + j] : -1.0f));
        }
    }
}

static void check_ranges(const nyb_code_ops *ops, const float *x, size_t n, size_t size)
{
    float low[MOST + 1], high[MOST + 1];
    const size_t groups = (n + size - 1) / size;
    low[groups] = high[groups] = 42.0f;
    ops->ranges(low, high, x, n, size);
    for (size_t g = 0; g < groups; g++) {
        float least = 0.0f, most = 0.0f;
        for (size_t i = g * size; i < n && i < (g + 1) * size; i++) {
            least = fminf(least, x[i]);
            most = fmaxf(most, x[i]);
        }
        assert_true(low[g] == least && high[g] == most);
    }
    assert_true(low[groups] == 42.0f && high[groups] == 42.0f);
}

static void check_row(const nyb_code_ops *ops, const float *x, size_t n, size_t size,
                      const float *scale, const float *zero, float top)
{
    uint8_t codes[MOST + GUARD];
    memset(codes, 0xa5, sizeof(codes));
    ops->nearest(codes, x, n, size, scale, zero, top);
    for (size_t i = 0; i < n; i++) {
        const float steps = fminf(fmaxf(x[i] / scale[i / size], -600.0f), 600.0f);
        const float code = rintf(steps) + zero[i / size];
        assert_int_equal(codes[i], (int) fminf(fmaxf(code, 0.0f), top));
    }
    for (size_t i = n; i < n + GUARD; i++)
        assert_int_equal(codes[i], 0xa5);
}

// Ties and their neighbours, values far outside, scales of any size and rows of any length, against
// rintf().
static void rows_get_their_ranges_and_nearest_codes(void **state)
{
    static const unsigned bits[] = {2, 3, 4, 8};
    uint64_t seed = 8;
    (void) state;
    for (size_t l = 0; l < LEVELS; l++) {
        if ((nyb_cpu_detected() & levels[l]) != levels[l])
            continue;
        const nyb_code_ops *const ops = nyb_code_ops_for(levels[l]);
        for (int trial = 0; trial < 20 * MOST; trial++) {
            float x[MOST];
            const size_t n = (size_t) trial % (MOST + 1);
            const float top = (float) ((1u << bits[trial % 4]) - 1);
            const size_t size = 1 + (size_t) nyb_random_below(&seed, MOST);
            float zeros[MOST], scales[MOST];
            for (size_t g = 0; g < MOST; g++) {
                const int exponent = trial % 3 ? -3 : (int) nyb_random_below(&seed, 253) - 126;
                zeros[g] = (float) nyb_random_below(&seed, (uint64_t) top + 1);
                scales[g] = ldexpf(1.0f + fabsf(test_uniform(&seed)), exponent);
            }
            for (size_t i = 0; i < n; i++) {
                const float scale = scales[i / size];
                const float tie = scale * (0.5f + (float) ((int) nyb_random_below(&seed, 41) - 20));
                x[i] = i % 4 == 0   ? tie
                       : i % 4 == 1 ? nextafterf(tie, i % 8 == 1 ? INFINITY : -INFINITY)
                       : i % 4 == 2 ? 1e6f * scale * test_uniform(&seed)
                                    : 16.0f * scale * test_uniform(&seed);
                x[i] = fminf(fmaxf(x[i], -FLT_MAX), FLT_MAX);
            }
            check_ranges(ops, x, n, size);
            check_row(ops, x, n, size, scales, zeros, top);
        }
    }
}

static void distances_are_those_of_the_nearest_steps(void **state)
{
    uint64_t seed = 6;
    double worst = 0.0;
    (void) state;
    make(&got, MOST, &seed);
    const nyb_code_grid grid = grid_of(&got);
    double total[ROWS];
    nyb_code_ops_get()->distance(total, got.values, got.weights, MOST, &grid);
    for (size_t row = 0; row < ROWS; row++) {
        double sum = 0.0;
        for (size_t j = 0; j < MOST; j++) {
            double least = INFINITY;
            for (float step = got.low[row]; step <= got.high[row]; step++) {
                const double off =
                    (double) got.scale[row] * (double) step - (double) got.values[j * ROWS + row];
                least = fmin(least, off * off);
            }
            sum += (double) got.weights[j] * least;
        }
        worst = fmax(worst, fabs(total[row] / sum - 1.0));
    }
    print_message("distance off by %.2g (tolerance 1e-5)\n", worst);
    assert_true(worst <= 1e-5);
}

// After a step no other step of that column is better, slopes and what moved follow, and columns
// without products stay.
static void descent_takes_the_best_step(void **state)
{
    enum { COLS = 20 };
    uint64_t seed = 7;
    double slope_off = 0.0, moved_off = 0.0;
    (void) state;
    make(&want, COLS, &seed);
    for (size_t j = 0; j < COLS; j++) {
        got = want;
        descend(nyb_code_ops_get(), &got, COLS, j, j + 1);
        const double curve = (double) want.h[j * COLS + j];
        for (size_t row = 0; row < ROWS; row++) {
            const size_t at = j * ROWS + row;
            const double scale = (double) want.scale[row];
            const double moved = scale * ((double) got.steps[at] - (double) want.steps[at]);
            if (curve == 0.0) {
                assert_true(moved == 0.0);
                continue;
            }
            const double gain = 2.0 * moved * (double) want.slopes[at] + moved * moved * curve;
            for (float step = want.low[row]; step <= want.high[row]; step++) {
                const double by = scale * ((double) step - (double) want.steps[at]);
                assert_true(gain <= 2.0 * by * (double) want.slopes[at] + by * by * curve + 1e-4);
            }
            moved_off =
                fmax(moved_off, fabs((double) got.moved[at] - (double) want.moved[at] - moved));
            for (size_t k = 0; k < COLS; k++) {
                const double slope =
                    (double) want.slopes[k * ROWS + row] + moved * (double) want.h[k * COLS + j];
                slope_off = fmax(slope_off, fabs((double) got.slopes[k * ROWS + row] - slope));
            }
        }
    }
    print_message("slopes off by %.2g, changes by %.2g (tolerance 1e-5)\n", slope_off, moved_off);
    assert_true(slope_off <= 1e-5 && moved_off <= 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_give_the_same_bits),
        cmocka_unit_test(rows_get_their_ranges_and_nearest_codes),
        cmocka_unit_test(distances_are_those_of_the_nearest_steps),
        cmocka_unit_test(descent_takes_the_best_step),
        cmocka_unit_test(moves_are_the_first_that_cost_least),
        cmocka_unit_test(rows_are_added_one_after_the_other),
        cmocka_unit_test(lines_are_turned),
    };
    return cmocka_run_group_tests_name("codes", tests, NULL, NULL);
}
