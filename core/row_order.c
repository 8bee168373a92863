#include "core/row_order.h"

bool nyb_row_order_same(const nyb_row_order *a, const nyb_row_order *b)
{
    return a->head == b->head && a->groups == b->groups && a->queries == b->queries;
}

size_t nyb_row_stored(const nyb_row_order *o, size_t row)
{
    if (o->head == 0)
        return row;
    const size_t inside = row % o->head, half = o->head / 2;
    if (o->groups == 0)
        return row - inside + (inside < half ? 2 * inside : 2 * (inside - half) + 1);
    const size_t heads = o->queries + 2, head = row / o->head;
    const size_t group = head / heads, part = head % heads, queries = o->groups * o->queries;
    const size_t at = part < o->queries ? group * o->queries + part
                                        : queries + (part - o->queries) * o->groups + group;
    return at * o->head + inside;
}

size_t nyb_row_named(const nyb_row_order *o, size_t at)
{
    if (o->head == 0)
        return at;
    const size_t inside = at % o->head, half = o->head / 2;
    if (o->groups == 0)
        return at - inside + (inside % 2 ? half : 0) + inside / 2;
    const size_t heads = o->queries + 2, head = at / o->head, queries = o->groups * o->queries;
    const size_t rest = head < queries ? 0 : head - queries;
    const size_t group = head < queries ? head / o->queries : rest % o->groups;
    const size_t part = head < queries ? head % o->queries : o->queries + rest / o->groups;
    return (group * heads + part) * o->head + inside;
}
