#include "gptq/order.h"

#include <stdlib.h>

#include "core/memory.h"

typedef struct place {
    double group_key, key;
    uint32_t group, column;
} place;

// Falling keys; equal ones stay in the order of their columns, so that the result is unique.
static int compare(const void *left, const void *right)
{
    const place *const a = left, *const b = right;
    if (a->group_key != b->group_key)
        return a->group_key > b->group_key ? -1 : 1;
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    if (a->key != b->key)
        return a->key > b->key ? -1 : 1;
    return a->column < b->column ? -1 : a->column > b->column;
}

nyb_status nyb_order_columns(uint32_t *columns, const double *keys, size_t n, nyb_gptq_order order,
                             size_t group_size, nyb_err *err)
{
    place *const places = nyb_alloc(n, sizeof(*places));
    if (!places)
        return nyb_no_memory(err, "order of columns", n, sizeof(*places));

    for (size_t j = 0; j < n; j++) {
        // Without grouping all columns are in group 0.
        const size_t group = order == NYB_ORDER_GROUP ? j / group_size : 0;
        places[j] = (place){.key = keys[j], .group = (uint32_t) group, .column = (uint32_t) j};
    }
    for (size_t j0 = 0; order == NYB_ORDER_GROUP && j0 < n; j0 += group_size) {
        const size_t j1 = j0 + group_size < n ? j0 + group_size : n;
        double sum = 0.0;
        for (size_t j = j0; j < j1; j++)
            sum += keys[j];
        for (size_t j = j0; j < j1; j++)
            places[j].group_key = sum;
    }
    if (order != NYB_ORDER_NONE)
        qsort(places, n, sizeof(*places), compare);
    for (size_t p = 0; p < n; p++)
        columns[p] = places[p].column;
    nyb_free(places);
    return NYB_OK;
}
