#include "calib/factor_cache.h"

#include <string.h>

#include "core/memory.h"

// A factor whose u is its upper triangle alone, row by row.
typedef struct kept {
    struct kept *next;
    size_t place, bytes;
    float *triangle;
    nyb_gptq_factor factor;
} kept;

struct nyb_factor_set {
    nyb_factor_set *next;
    nyb_factor_key key; // of any place
    kept *first;
};

nyb_factor_key nyb_factor_key_of(size_t place, const nyb_gptq_params *params)
{
    return (nyb_factor_key){
        .place = place,
        .order = params->order,
        .group_size = params->order == NYB_ORDER_GROUP ? params->grid.group_size : 0,
        .damping = params->damping,
    };
}

static size_t triangle(size_t n)
{
    return n * (n + 1) / 2;
}

static void free_kept(kept *k)
{
    nyb_free(k->triangle);
    nyb_free(k->factor.columns);
    nyb_free(k->factor.dead);
    nyb_free(k);
}

static void free_set(nyb_factor_cache *cache, nyb_factor_set *set)
{
    while (set->first) {
        kept *const k = set->first;
        set->first = k->next;
        cache->bytes -= k->bytes;
        free_kept(k);
    }
    nyb_free(set);
}

void nyb_factor_cache_clear(nyb_factor_cache *cache)
{
    while (cache->sets) {
        nyb_factor_set *const set = cache->sets;
        cache->sets = set->next;
        free_set(cache, set);
    }
}

static bool same_set(nyb_factor_key a, nyb_factor_key b)
{
    return a.order == b.order && a.group_size == b.group_size && !(a.damping < b.damping) &&
           !(a.damping > b.damping);
}

// The key's set, which becomes the first; NULL: there is none.
static nyb_factor_set *turn_to(nyb_factor_cache *cache, nyb_factor_key key)
{
    for (nyb_factor_set **at = &cache->sets; *at; at = &(*at)->next) {
        nyb_factor_set *const set = *at;
        if (!same_set(set->key, key))
            continue;
        *at = set->next;
        set->next = cache->sets;
        cache->sets = set;
        return set;
    }
    return NULL;
}

static const kept *find(nyb_factor_cache *cache, nyb_factor_key key)
{
    const nyb_factor_set *const set = turn_to(cache, key);
    const kept *k = set ? set->first : NULL;
    while (k && k->place != key.place)
        k = k->next;
    return k;
}

// Copies the arrays whose pointers `to` has from `from`; u is copied by the caller.
static bool copy_arrays(nyb_gptq_factor *to, const nyb_gptq_factor *from)
{
    const size_t n = from->u.rows;
    to->columns = nyb_alloc_raw(n, sizeof(*to->columns));
    to->dead = nyb_alloc_raw(n, 1);
    if (!to->columns || !to->dead)
        return false;
    memcpy(to->columns, from->columns, n * sizeof(*to->columns));
    memcpy(to->dead, from->dead, n);
    return true;
}

nyb_status nyb_factor_cache_get(nyb_factor_cache *cache, nyb_factor_key key,
                                const nyb_hessian *hessian, nyb_gptq_factor *out, bool *found,
                                nyb_err *err)
{
    const kept *const k = find(cache, key);
    *out = (nyb_gptq_factor){0};
    *found = k != NULL;
    cache->found += *found;
    cache->missed += !*found;
    if (!k)
        return NYB_OK;

    const size_t n = k->factor.u.rows;
    *out = k->factor;
    out->hessian = hessian;
    out->seconds = 0.0;
    out->u = nyb_mat_of(nyb_alloc_raw(n, n * sizeof(float)), n, n);
    if (!copy_arrays(out, &k->factor) || !out->u.at) {
        nyb_gptq_factor_clear(out);
        return nyb_no_memory(err, "factor of the hessian", n, n * sizeof(float));
    }
    const float *from = k->triangle;
    for (size_t i = 0; i < n; from += n - i, i++)
        memcpy(nyb_row(out->u, i) + i, from, (n - i) * sizeof(float));
    return NYB_OK;
}

// Drops sets, the one that was asked for least lately first, until there is room for so many bytes
// more; the first stays.
static bool make_room(nyb_factor_cache *cache, size_t bytes)
{
    while (cache->bytes + bytes > cache->limit && cache->sets && cache->sets->next) {
        nyb_factor_set **last = &cache->sets->next;
        while ((*last)->next)
            last = &(*last)->next;
        free_set(cache, *last);
        *last = NULL;
    }
    return cache->bytes + bytes <= cache->limit;
}

static nyb_factor_set *set_of(nyb_factor_cache *cache, nyb_factor_key key)
{
    nyb_factor_set *set = turn_to(cache, key);
    if (set)
        return set;
    set = nyb_alloc(1, sizeof(*set));
    if (!set)
        return NULL;
    *set = (nyb_factor_set){.next = cache->sets, .key = key};
    cache->sets = set;
    return set;
}

static kept *copy_factor(const nyb_gptq_factor *factor)
{
    const size_t n = factor->u.rows;
    kept *const k = nyb_alloc(1, sizeof(*k));
    if (!k)
        return NULL;
    k->factor = *factor;
    k->factor.u.at = NULL;
    k->factor.hessian = NULL;
    k->factor.columns = NULL;
    k->factor.dead = NULL;
    k->triangle = nyb_alloc_raw(triangle(n), sizeof(float));
    if (!k->triangle || !copy_arrays(&k->factor, factor)) {
        free_kept(k);
        return NULL;
    }
    float *to = k->triangle;
    for (size_t i = 0; i < n; to += n - i, i++)
        memcpy(to, nyb_row(factor->u, i) + i, (n - i) * sizeof(float));
    return k;
}

void nyb_factor_cache_put(nyb_factor_cache *cache, nyb_factor_key key,
                          const nyb_gptq_factor *factor)
{
    const size_t n = factor->u.rows;
    const size_t bytes = triangle(n) * sizeof(float) + n * (sizeof(uint32_t) + 1) + sizeof(kept);
    if (bytes > cache->limit || find(cache, key))
        return;
    nyb_factor_set *const set = set_of(cache, key);
    kept *const k = set && make_room(cache, bytes) ? copy_factor(factor) : NULL;
    if (!k)
        return;
    k->place = key.place;
    k->bytes = bytes;
    k->next = set->first;
    set->first = k;
    cache->bytes += bytes;
}
