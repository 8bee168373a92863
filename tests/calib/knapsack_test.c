#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "calib/knapsack.h"

enum { MOST = 6, CHOICES = 5 };

typedef struct problem {
    nyb_choice choices[MOST][CHOICES];
    nyb_choices items[MOST];
    size_t count;
    uint64_t budget;
} problem;

// Losses fall as costs rise, mostly; costs are multiples of `unit`.
static void make(problem *p, uint64_t seed, uint64_t unit)
{
    uint64_t least = 0, most = 0;
    p->count = 1 + nyb_random_below(&seed, MOST);
    for (size_t i = 0; i < p->count; i++) {
        const size_t count = 1 + nyb_random_below(&seed, CHOICES);
        uint64_t low = UINT64_MAX, high = 0;
        for (size_t c = 0; c < count; c++) {
            const uint64_t cost = unit * (1 + nyb_random_below(&seed, 40));
            p->choices[i][c] = (nyb_choice){cost, nyb_random_unit(&seed) * 100.0 / (double) cost +
                                                      nyb_random_unit(&seed)};
            low = cost < low ? cost : low;
            high = cost > high ? cost : high;
        }
        p->items[i] = (nyb_choices){p->choices[i], count};
        least += low;
        most += high;
    }
    p->budget = least + nyb_random_below(&seed, most - least + 2);
}

// Every combination.
static double brute_force(const problem *p)
{
    size_t at[MOST] = {0};
    double best = (double) INFINITY;
    for (;;) {
        uint64_t cost = 0;
        double loss = 0.0;
        for (size_t i = 0; i < p->count; i++) {
            cost += p->items[i].at[at[i]].cost;
            loss += p->items[i].at[at[i]].loss;
        }
        best = cost <= p->budget && loss < best ? loss : best;
        size_t i = 0;
        while (i < p->count && ++at[i] == p->items[i].count)
            at[i++] = 0;
        if (i == p->count)
            return best;
    }
}

// What was chosen, added up anew.
static void check_choice(const problem *p, const size_t *chosen, const nyb_packing *packing)
{
    uint64_t cost = 0;
    double loss = 0.0;
    for (size_t i = 0; i < p->count; i++) {
        assert_true(chosen[i] < p->items[i].count);
        cost += p->items[i].at[chosen[i]].cost;
        loss += p->items[i].at[chosen[i]].loss;
    }
    assert_true(cost == packing->cost && cost <= p->budget);
    assert_near(packing->loss, loss, 1e-9);
}

static void nothing_is_better(void **state)
{
    static problem p;
    size_t chosen[MOST];
    nyb_packing packing;
    (void) state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        make(&p, seed, 1 + seed % 7);
        assert_int_equal(nyb_knapsack(p.items, p.count, p.budget, 0, chosen, &packing, NULL),
                         NYB_OK);
        check_choice(&p, chosen, &packing);
        assert_near(packing.loss, brute_force(&p), 1e-9);
        assert_true(packing.bound == packing.loss);
    }
}

static void coarse_units_keep_the_budget_and_the_bound(void **state)
{
    static problem p;
    size_t chosen[MOST], solved = 0, worse = 0;
    nyb_packing packing;
    (void) state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        make(&p, seed, 1000 + seed);
        p.choices[0][0].cost++; // no common divisor
        p.budget++;
        const nyb_status status =
            nyb_knapsack(p.items, p.count, p.budget, 200, chosen, &packing, NULL);
        if (status != NYB_OK)
            continue;
        const double best = brute_force(&p);
        check_choice(&p, chosen, &packing);
        assert_true(packing.bound <= best + 1e-9 && packing.loss >= best - 1e-9);
        worse += packing.bound < packing.loss;
        solved++;
    }
    print_message("%zu of 500 solved in coarse units, %zu not proven best\n", solved, worse);
    assert_true(solved > 300 && worse > 50);
}

static void what_cannot_fit_is_refused(void **state)
{
    const nyb_choice choices[] = {{10, 1.0}, {20, 0.5}};
    const nyb_choices items[] = {{choices, 2}, {choices, 2}};
    size_t chosen[2];
    nyb_packing packing;
    nyb_err err;
    (void) state;
    assert_int_equal(nyb_knapsack(items, 2, 19, 0, chosen, &packing, &err), NYB_E_ARG);
    assert_non_null(strstr(err.text, "20"));
    assert_int_equal(nyb_knapsack(items, 2, 20, 0, chosen, &packing, &err), NYB_OK);
    assert_true(chosen[0] == 0 && chosen[1] == 0 && packing.loss == 2.0);
    assert_int_equal(nyb_knapsack(items, 0, 20, 0, chosen, &packing, &err), NYB_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_better),
        cmocka_unit_test(coarse_units_keep_the_budget_and_the_bound),
        cmocka_unit_test(what_cannot_fit_is_refused),
    };
    return cmocka_run_group_tests_name("knapsack", tests, NULL, NULL);
}
