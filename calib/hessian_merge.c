// Putting stores of Hessians together.
#include <string.h>

#include "calib/activations.h"
#include "calib/hessian_parts.h"
#include "calib/hessian_store.h"
#include "core/clock.h"
#include "core/log.h"
#include "nybble/calibrate.h"

typedef struct merging {
    const nyb_context *ctx;
    nyb_hessian_store *stores; // [count]
    size_t count;
    nyb_samples samples; // of all
    json_t *calibration; // likewise
    nyb_hessian_writer writer;
    size_t layers;
} merging;

static nyb_status open_stores(merging *m, const char *const *paths, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < m->count; i++) {
        nyb_hessian_store *const s = &m->stores[i];
        status = nyb_hessian_store_open(s, paths[i], err);
        if (status == NYB_OK && i > 0)
            status = nyb_hessian_store_check(s, &m->stores[0].about, paths[0], err);
        if (status == NYB_OK && s->length != m->stores[0].length)
            status = nyb_fail(err, NYB_E_FORMAT, "%s: samples of %zu tokens, but %s has %zu",
                              paths[i], s->length, paths[0], m->stores[0].length);
        m->samples.count += s->samples;
        m->samples.counted += s->counted;
    }
    m->samples.length = m->stores[0].length;
    return status;
}

static nyb_status check_units(const merging *m, nyb_err *err)
{
    const size_t unit = nyb_activations_unit(m->samples.length);
    for (size_t i = 0; i + 1 < m->count; i++) {
        if (m->stores[i].samples % unit != 0)
            return nyb_fail(err, NYB_E_ARG,
                            "%s: its %zu samples are not whole units of %zu, so it can only be "
                            "the last of those that are merged",
                            m->stores[i].path, m->stores[i].samples, unit);
    }
    return NYB_OK;
}

// A window that is in two stores would count twice.
static nyb_status check_new(const merging *m, size_t index, size_t before, nyb_err *err)
{
    const size_t length = m->samples.length;
    for (size_t i = before; i < before + m->stores[index].samples; i++) {
        for (size_t k = 0; k < before; k++) {
            if (memcmp(m->samples.ids + i * length, m->samples.ids + k * length,
                       length * sizeof(uint32_t)) == 0)
                return nyb_fail(err, NYB_E_ARG,
                                "%s: its sample %zu is also sample %zu of the stores before it: "
                                "merge stores of different text",
                                m->stores[index].path, i - before, k);
        }
    }
    return NYB_OK;
}

static nyb_status join_tokens(merging *m, nyb_err *err)
{
    nyb_samples *const all = &m->samples;
    const size_t length = all->length;
    size_t at = 0;
    all->ids = nyb_arena_alloc(&all->arena, all->count * length, sizeof(*all->ids));
    all->marks = nyb_arena_alloc(&all->arena, all->count * length, 1);
    if (!all->ids || !all->marks)
        return nyb_no_memory(err, "tokens", all->count, length);
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < m->count; i++) {
        nyb_hessian_store *const s = &m->stores[i];
        const size_t tokens = s->samples * length;
        uint32_t *ids = NULL;
        unsigned char *marks = NULL;
        status = nyb_hessian_store_tokens(s, &s->arena, &ids, &marks, err);
        if (status != NYB_OK)
            break;
        memcpy(all->ids + at * length, ids, tokens * sizeof(*ids));
        if (marks)
            memcpy(all->marks + at * length, marks, tokens);
        else
            memset(all->marks + at * length, 1, tokens);
        status = check_new(m, i, at, err);
        at += s->samples;
    }
    if (all->counted == all->count * length)
        all->marks = NULL;
    return status;
}

static nyb_status merge_sum(merging *m, const nyb_store_sum *which, nyb_err *err)
{
    const char *const module = which->modules[0];
    nyb_hessian_sum sum;
    nyb_store_entry entry;
    size_t routed = 0;
    nyb_status status = nyb_hessian_store_entry(&m->stores[0], module, &entry, err);
    if (status == NYB_OK)
        status = nyb_hessian_sum_init(&sum, entry.order, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; status == NYB_OK && i < m->count; i++) {
        status = nyb_hessian_store_entry(&m->stores[i], module, &entry, err);
        if (status == NYB_OK)
            status = nyb_hessian_store_add(m->ctx, &m->stores[i], module, &sum, err);
        routed += entry.routed;
    }
    if (status == NYB_OK)
        status =
            nyb_hessian_writer_put(&m->writer, which->modules, which->count, &sum, routed, err);
    nyb_hessian_sum_clear(&sum);
    m->layers += which->count;
    return status;
}

static nyb_status merge(merging *m, nyb_err *err)
{
    nyb_store_sum *sums = NULL;
    size_t count = 0;
    nyb_status status = nyb_hessian_store_list(&m->stores[0], &sums, &count, err);
    for (size_t i = 0; status == NYB_OK && i < count; i++) {
        status = merge_sum(m, &sums[i], err);
        nyb_step(m->ctx, &(nyb_progress){
                             .stage = "merge", .unit = "Hessians", .done = i + 1, .total = count});
    }
    m->calibration = json_pack("{s:[], s:[]}", "files", "machines");
    for (size_t i = 0; m->calibration && i < m->count; i++)
        nyb_store_unite(m->calibration, m->stores[i].calibration);
    if (status == NYB_OK && !m->calibration)
        status = nyb_no_memory(err, "attributes", 1, 1);
    return status == NYB_OK ? nyb_hessian_writer_finish(&m->writer, &m->stores[0].about,
                                                        &m->samples, m->calibration, err)
                            : status;
}

nyb_status nyb_merge_hessians(const nyb_context *ctx, const char *const *stores, size_t count,
                              const nyb_hessians_params *params, nyb_calibrate_result *result,
                              nyb_err *err)
{
    const double start = nyb_seconds();
    merging m = {.ctx = ctx, .count = count};
    if (count == 0)
        return nyb_fail(err, NYB_E_ARG, "no store to merge");
    if (params->compression > 9)
        return nyb_fail(err, NYB_E_ARG, "compression is %u, want 0 to 9", params->compression);
    m.stores = nyb_alloc(count, sizeof(*m.stores));
    if (!m.stores)
        return nyb_no_memory(err, "stores", count, sizeof(*m.stores));
    nyb_status status = open_stores(&m, stores, err);
    if (status == NYB_OK)
        status = check_units(&m, err);
    if (status == NYB_OK)
        status = join_tokens(&m, err);
    if (status == NYB_OK)
        status = nyb_hessian_writer_open(&m.writer, params->out, params->compression, params->force,
                                         err);
    if (status == NYB_OK)
        status = merge(&m, err);
    if (status == NYB_OK && result)
        *result = (nyb_calibrate_result){.layers = m.layers,
                                         .samples = m.samples.count,
                                         .tokens = m.samples.counted,
                                         .seconds = nyb_seconds() - start};
    nyb_hessian_writer_close(&m.writer);
    for (size_t i = 0; i < count; i++)
        nyb_hessian_store_close(&m.stores[i]);
    nyb_free(m.stores);
    json_decref(m.calibration);
    nyb_arena_clear(&m.samples.arena);
    return status;
}
