#include "calib/knapsack.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"

enum { CELLS = 256 << 20 };

typedef struct table {
    const nyb_choices *items;
    size_t count;
    uint64_t unit, width; // sums of costs are below width units
    bool down;            // costs are rounded down instead of up
    double *best, *next;  // [width] the least loss of the items so far with at most this cost
    uint8_t *taken;       // [count, width] which choice gives it
} table;

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint64_t units_of(const table *t, uint64_t cost)
{
    return cost / t->unit + (!t->down && cost % t->unit != 0);
}

// Takes one more item in.
static void add_item(table *t, size_t index)
{
    const nyb_choices *const item = &t->items[index];
    uint8_t *const taken = t->taken ? t->taken + index * t->width : NULL;
    for (uint64_t w = 0; w < t->width; w++)
        t->next[w] = (double) INFINITY;
    for (size_t c = 0; c < item->count; c++) {
        const uint64_t cost = units_of(t, item->at[c].cost);
        const double loss = item->at[c].loss;
        for (uint64_t w = cost; w < t->width; w++) {
            const double sum = t->best[w - cost] + loss;
            if (sum < t->next[w]) {
                t->next[w] = sum;
                if (taken)
                    taken[w] = (uint8_t) c;
            }
        }
    }
    double *const old = t->best;
    t->best = t->next;
    t->next = old;
}

// The least loss; infinite: nothing fits.
static double fill(table *t)
{
    for (uint64_t w = 0; w < t->width; w++)
        t->best[w] = 0.0;
    for (size_t i = 0; i < t->count; i++)
        add_item(t, i);
    return t->best[t->width - 1];
}

static void walk_back(const table *t, size_t *chosen, nyb_packing *packing)
{
    uint64_t w = t->width - 1;
    packing->cost = 0;
    for (size_t i = t->count; i-- > 0;) {
        chosen[i] = t->taken[i * t->width + w];
        const uint64_t cost = t->items[i].at[chosen[i]].cost;
        packing->cost += cost;
        w -= units_of(t, cost);
    }
}

static nyb_status solve(table *t, size_t *chosen, nyb_packing *packing, bool exact, nyb_err *err)
{
    t->best = nyb_alloc_raw((size_t) t->width, sizeof(double));
    t->next = nyb_alloc_raw((size_t) t->width, sizeof(double));
    t->taken = nyb_alloc_raw(t->count, (size_t) t->width);
    const bool room = t->best && t->next && t->taken;
    if (room) {
        packing->loss = fill(t);
        if (isfinite(packing->loss))
            walk_back(t, chosen, packing);
        packing->bound = packing->loss;
    }
    nyb_free(t->taken);
    t->taken = NULL;
    if (room && !exact) {
        t->down = true;
        packing->bound = fill(t);
    }
    nyb_free(t->best);
    nyb_free(t->next);
    return room ? NYB_OK : nyb_no_memory(err, "choices", t->count, (size_t) t->width);
}

nyb_status nyb_knapsack(const nyb_choices *items, size_t count, uint64_t budget, size_t cells,
                        size_t *chosen, nyb_packing *packing, nyb_err *err)
{
    uint64_t unit = 0, least = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t cheapest = UINT64_MAX;
        for (size_t c = 0; c < items[i].count; c++) {
            unit = gcd(items[i].at[c].cost, unit);
            cheapest = items[i].at[c].cost < cheapest ? items[i].at[c].cost : cheapest;
        }
        least += cheapest;
    }
    if (least > budget || count == 0)
        return nyb_fail(err, NYB_E_ARG, "the smallest choices take %llu, the budget is %llu",
                        (unsigned long long) least, (unsigned long long) budget);
    const uint64_t most = (cells ? cells : CELLS) / count + count + 1;
    const uint64_t own = budget / unit + 1;
    table t = {.items = items, .count = count, .unit = unit, .width = own};
    if (own > most) {
        t.unit = (budget + most - 1) / most;
        t.width = budget / t.unit + 1;
    }
    const nyb_status status = solve(&t, chosen, packing, own <= most, err);
    if (status == NYB_OK && !isfinite(packing->loss))
        return nyb_fail(err, NYB_E_ARG, "the budget of %llu leaves no room for rounding",
                        (unsigned long long) budget);
    return status;
}
