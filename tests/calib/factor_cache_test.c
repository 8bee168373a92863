#include "tests/test.h"

#include <string.h>

#include "calib/factor_cache.h"

enum { N = 24, TOKENS = 40, PLACES = 3 };

typedef struct fixture {
    nyb_hessian hessians[PLACES];
    nyb_factor_cache cache;
} fixture;

static int set_up(void **state)
{
    static fixture f;
    uint64_t seed = 5;
    float x[TOKENS * N];
    f = (fixture){.cache.limit = SIZE_MAX};
    for (size_t p = 0; p < PLACES; p++) {
        for (size_t i = 0; i < TOKENS * N; i++)
            x[i] = i % N == 7 ? 0.0f : test_uniform(&seed); // column 7 never has an input
        if (nyb_hessian_init(&f.hessians[p], N, NULL) != NYB_OK ||
            nyb_hessian_add(NULL, &f.hessians[p], nyb_mat_of(x, TOKENS, N), NULL) != NYB_OK)
            return -1;
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *const f = *state;
    for (size_t p = 0; p < PLACES; p++)
        nyb_hessian_clear(&f->hessians[p]);
    nyb_factor_cache_clear(&f->cache);
    assert_int_equal(f->cache.bytes, 0);
    return 0;
}

static nyb_gptq_params with(nyb_gptq_order order, size_t group_size, double damping)
{
    nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
    params.order = order;
    params.grid.group_size = group_size;
    params.damping = damping;
    return params;
}

// Looks for a factor, and keeps it when it is not there. Returns whether it was.
static bool ask(fixture *f, size_t place, const nyb_gptq_params *params)
{
    nyb_gptq_factor got, want;
    bool found = false;
    const nyb_factor_key key = nyb_factor_key_of(place, params);
    assert_int_equal(nyb_factor_cache_get(&f->cache, key, &f->hessians[place], &got, &found, NULL),
                     NYB_OK);
    assert_int_equal(nyb_gptq_prepare(NULL, &want, &f->hessians[place], params, NULL), NYB_OK);
    if (found) {
        assert_ptr_equal(got.hessian, &f->hessians[place]);
        assert_memory_equal(got.columns, want.columns, N * sizeof(*want.columns));
        assert_memory_equal(got.dead, want.dead, N);
        assert_true(got.dead_columns == 1 && got.order == want.order);
        assert_memory_equal(&got.damping, &want.damping, sizeof(double));
        assert_memory_equal(&got.lambda, &want.lambda, sizeof(double));
        for (size_t i = 0; i < N; i++)
            assert_memory_equal(nyb_row(got.u, i) + i, nyb_row(want.u, i) + i,
                                (N - i) * sizeof(float));
    } else {
        nyb_factor_cache_put(&f->cache, key, &want);
    }
    nyb_gptq_factor_clear(&got);
    nyb_gptq_factor_clear(&want);
    return found;
}

static void what_is_kept_is_what_would_be_made(void **state)
{
    fixture *const f = *state;
    const nyb_gptq_params all[] = {with(NYB_ORDER_GROUP, 8, 0.01), with(NYB_ORDER_GROUP, 4, 0.01),
                                   with(NYB_ORDER_GROUP, 8, 0.02), with(NYB_ORDER_FULL, 8, 0.01),
                                   with(NYB_ORDER_NONE, 8, 0.01)};
    enum { ALL = sizeof(all) / sizeof(all[0]) };
    for (size_t round = 0; round < 2; round++) {
        for (size_t k = 0; k < ALL; k++) {
            for (size_t p = 0; p < PLACES; p++)
                assert_int_equal(ask(f, p, &all[k]), round == 1);
        }
    }
    assert_true(f->cache.found == ALL * PLACES && f->cache.missed == ALL * PLACES);
}

static void orders_without_groups_do_not_look_at_their_size(void **state)
{
    fixture *const f = *state;
    for (int order = NYB_ORDER_GROUP; order <= NYB_ORDER_FULL; order++) {
        const nyb_gptq_params one = with((nyb_gptq_order) order, 8, 0.01);
        const nyb_gptq_params other = with((nyb_gptq_order) order, 4, 0.01);
        assert_false(ask(f, 0, &one));
        assert_int_equal(ask(f, 0, &other), order != NYB_ORDER_GROUP);
    }
}

static void the_oldest_set_makes_room_and_never_the_one_at_hand(void **state)
{
    fixture *const f = *state;
    const nyb_gptq_params a = with(NYB_ORDER_NONE, 8, 0.01), b = with(NYB_ORDER_NONE, 8, 0.02),
                          c = with(NYB_ORDER_NONE, 8, 0.04);
    assert_false(ask(f, 0, &a));
    const size_t one = f->cache.bytes;
    nyb_factor_cache_clear(&f->cache);
    f->cache.limit = 2 * one;

    for (size_t p = 0; p < PLACES; p++)
        assert_false(ask(f, p, &a));
    assert_int_equal(f->cache.bytes, 2 * one);
    assert_true(ask(f, 0, &a) && ask(f, 1, &a) && !ask(f, 2, &a));

    f->cache.limit = 3 * one;
    assert_false(ask(f, 0, &b));
    assert_true(ask(f, 0, &a) && ask(f, 0, &b) && ask(f, 1, &a)); // b was asked for before a
    assert_false(ask(f, 0, &c));
    assert_true(ask(f, 0, &a) && ask(f, 1, &a) && !ask(f, 0, &b)); // and so b went, and now c
    assert_true(f->cache.bytes <= 3 * one);

    f->cache.limit = one - 1;
    nyb_factor_cache_clear(&f->cache);
    assert_false(ask(f, 0, &a));
    assert_false(ask(f, 0, &a));
    assert_int_equal(f->cache.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_kept_is_what_would_be_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(orders_without_groups_do_not_look_at_their_size, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_set_makes_room_and_never_the_one_at_hand, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
