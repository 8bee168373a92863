#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "gptq/hessian_sum.h"

// For exact sums.
__extension__ typedef __int128 wide;

enum { N = 37, TERMS = 24, SIZE = N * (N + 1) / 2 };

// Magnitudes from 2^-70 to 2^30, so that neither f64 nor f32 holds such sums.
static void fill(nyb_hessian *h, uint64_t seed)
{
    assert_int_equal(nyb_hessian_init(h, N, NULL), NYB_OK);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = i; j < N; j++) {
            const int power = (int) (50.0f * test_uniform(&seed)) - 20;
            nyb_row(h->h, i)[j] = ldexpf(test_uniform(&seed), power);
        }
    }
    h->tokens = (size_t) seed % 100;
}

// Adds terms [first, end) in an order of their own.
static void add_up(nyb_hessian_sum *sum, size_t first, size_t end, bool backwards, unsigned threads)
{
    const nyb_context ctx = {.threads = threads};
    assert_int_equal(nyb_hessian_sum_init(sum, N, NULL), NYB_OK);
    for (size_t i = 0; i < end - first; i++) {
        nyb_hessian term;
        fill(&term, 100 + (backwards ? end - 1 - i : first + i));
        assert_int_equal(nyb_hessian_sum_take(&ctx, sum, &term, NULL), NYB_OK);
        assert_true(term.tokens == 0 && nyb_row(term.h, 0)[0] == 0.0f);
        nyb_hessian_clear(&term);
    }
}

static void same(const nyb_hessian_sum *a, const nyb_hessian_sum *b)
{
    assert_int_equal(a->tokens, b->tokens);
    assert_memory_equal(a->high, b->high, SIZE * sizeof(double));
    assert_memory_equal(a->low, b->low, SIZE * sizeof(double));
}

static void order_and_parts_do_not_change_bits(void **state)
{
    nyb_hessian_sum whole, backwards;
    (void) state;
    add_up(&whole, 0, TERMS, false, 1);
    add_up(&backwards, 0, TERMS, true, 3);
    assert_false(nyb_hessian_sum_is_plain(&whole)); // else this shows nothing
    same(&whole, &backwards);
    for (size_t cut = 0; cut <= TERMS; cut++) {
        nyb_hessian_sum first, second;
        add_up(&first, 0, cut, false, 2);
        add_up(&second, cut, TERMS, true, 1);
        assert_int_equal(nyb_hessian_sum_merge(NULL, &second, &first, NULL), NYB_OK);
        same(&whole, &second);
        nyb_hessian_sum_clear(&first);
        nyb_hessian_sum_clear(&second);
    }
    nyb_hessian_sum_clear(&whole);
    nyb_hessian_sum_clear(&backwards);
}

// Against whole numbers of 128 bits, in steps of 2^-56.
static void sums_are_exact(void **state)
{
    static wide want[SIZE];
    nyb_hessian_sum sum;
    (void) state;
    memset(want, 0, sizeof(want));
    for (size_t t = 0; t < TERMS; t++) {
        nyb_hessian term;
        fill(&term, 100 + t);
        for (size_t i = 0; i < N; i++)
            for (size_t j = i; j < N; j++)
                want[nyb_triangle_row(N, i) + j - i] +=
                    (wide) rint(ldexp((double) nyb_row(term.h, i)[j], 56));
        nyb_hessian_clear(&term);
    }
    add_up(&sum, 0, TERMS, false, 2);
    for (size_t i = 0; i < SIZE; i++) {
        const wide got = (wide) ldexp(sum.high[i], 56) + (wide) ldexp(sum.low[i], 56);
        assert_true(got == want[i]);
        assert_true(sum.high[i] + sum.low[i] == sum.high[i]);
    }
    nyb_hessian_sum_clear(&sum);
}

static void what_does_not_fit_is_refused(void **state)
{
    const float bad[] = {NAN, INFINITY, 0x1p47f, -0x1p47f};
    nyb_hessian_sum sum, part;
    nyb_hessian term;
    (void) state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(nyb_hessian_sum_init(&sum, N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_init(&term, N, NULL), NYB_OK);
        nyb_row(term.h, 20)[30] = bad[i];
        assert_int_equal(nyb_hessian_sum_take(NULL, &sum, &term, NULL), NYB_E_NUMERIC);
        nyb_hessian_clear(&term);
        nyb_hessian_sum_clear(&sum);
    }
    // Parts as a file may have them: between two steps, high not the nearest, out of range.
    const double high[] = {0x1p-57, 1.0, 0x1p47, (double) NAN}, low[] = {0.0, 0.5, 0.0, 0.0};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(nyb_hessian_sum_init(&sum, N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_sum_init(&part, N, NULL), NYB_OK);
        part.high[SIZE - 1] = high[i];
        part.low[SIZE - 1] = low[i];
        assert_int_equal(nyb_hessian_sum_merge(NULL, &sum, &part, NULL), NYB_E_NUMERIC);
        nyb_hessian_sum_clear(&sum);
        nyb_hessian_sum_clear(&part);
    }
    assert_int_equal(nyb_hessian_sum_init(&sum, N, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_init(&term, N + 1, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_sum_take(NULL, &sum, &term, NULL), NYB_E_SHAPE);
    nyb_hessian_clear(&term);
    nyb_hessian_sum_clear(&sum);
}

static void rounds_to_f32(void **state)
{
    nyb_hessian_sum sum;
    nyb_hessian h;
    (void) state;
    add_up(&sum, 0, 3, false, 1);
    assert_int_equal(nyb_hessian_sum_round(&sum, &h, NULL), NYB_OK);
    assert_int_equal(h.tokens, sum.tokens);
    for (size_t i = 0; i < N; i++)
        for (size_t j = i; j < N; j++)
            assert_true(nyb_row(h.h, i)[j] == (float) sum.high[nyb_triangle_row(N, i) + j - i]);
    nyb_hessian_clear(&h);
    nyb_hessian_sum_clear(&sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_and_parts_do_not_change_bits),
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(rounds_to_f32),
    };
    return cmocka_run_group_tests_name("hessian_sum", tests, NULL, NULL);
}
