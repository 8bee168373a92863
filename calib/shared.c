#include "calib/shared.h"

#include <string.h>

#include "calib/source_files.h"
#include "core/clock.h"

// A loss of plain rounding; or, with `grid` zeroed, the energy of the layer's output.
struct nyb_known_loss {
    nyb_known_loss *next;
    nyb_grid_params grid;
    double loss;
};

// What one store said.
static void forget(nyb_shared *s)
{
    nyb_hessian_store_close(&s->store);
    nyb_factor_cache_clear(&s->factors);
    nyb_arena_clear(&s->arena);
    s->losses = NULL;
}

void nyb_shared_close(nyb_shared *shared)
{
    forget(shared);
    json_decref(shared->files);
    *shared = (nyb_shared){0};
}

json_t *nyb_shared_files(nyb_shared *shared, const nyb_context *ctx, const nyb_model *model)
{
    if (!shared)
        return nyb_source_files(ctx, nyb_model_checkpoint(model));
    if (!shared->files)
        shared->files = nyb_source_files(ctx, nyb_model_checkpoint(model));
    return json_incref(shared->files);
}

nyb_status nyb_shared_store(nyb_shared *shared, const nyb_context *ctx, const nyb_model *model,
                            const char *path, bool all_experts, nyb_hessian_store **out,
                            nyb_err *err)
{
    const nyb_compute compute = ctx ? ctx->compute : NYB_COMPUTE_AUTO;
    nyb_hessian_store *const store = &shared->store;
    *out = store;
    if (store->file && strcmp(store->path, path) == 0 && shared->all_experts == all_experts &&
        shared->compute == compute)
        return NYB_OK;
    forget(shared);
    shared->all_experts = all_experts;
    shared->compute = compute;
    return nyb_hessian_store_open_for(store, ctx, path, model, all_experts, err);
}

// ---- Losses -------------------------------------------------------------------------------------

static bool same_grid(const nyb_grid_params *a, const nyb_grid_params *b)
{
    const bool range = a->range.kind == b->range.kind &&
                       !(a->range.percentile < b->range.percentile) &&
                       !(a->range.percentile > b->range.percentile);
    return range && a->kind == b->kind && a->block == b->block && a->bits == b->bits &&
           a->group_size == b->group_size && a->symmetric == b->symmetric &&
           a->scale_search == b->scale_search && a->scale_dtype == b->scale_dtype &&
           a->lowest_zero == b->lowest_zero && a->reference == b->reference;
}

static const nyb_known_loss *find(const nyb_shared *s, size_t index, const nyb_grid_params *grid)
{
    const nyb_known_loss *known = s->losses[index];
    while (known && !same_grid(&known->grid, grid))
        known = known->next;
    return known;
}

// The loss of plain rounding onto the grid, or, without bits, the output's energy.
static nyb_status measure(const nyb_context *ctx, const nyb_shared_layer *layer,
                          const nyb_grid_params *grid, double *loss, nyb_err *err)
{
    nyb_qweight q = {0};
    const bool rounded = grid->bits > 0;
    nyb_status status = rounded ? nyb_round_nearest(ctx, &q, layer->w, grid, err) : NYB_OK;
    if (status == NYB_OK)
        status = nyb_hessian_yardsticks(ctx, layer->hessian, layer->w, rounded ? &q : NULL,
                                        rounded ? loss : NULL, rounded ? NULL : loss, err);
    nyb_qweight_clear(&q);
    return status;
}

static nyb_status look_up(nyb_shared *s, const nyb_context *ctx, const nyb_shared_layer *layer,
                          const nyb_grid_params *grid, double *loss, nyb_err *err)
{
    const nyb_known_loss *const known = find(s, layer->index, grid);
    if (known) {
        *loss = known->loss;
        return NYB_OK;
    }
    const nyb_status status = measure(ctx, layer, grid, loss, err);
    if (status != NYB_OK)
        return status;
    nyb_known_loss *const more = nyb_arena_alloc(&s->arena, 1, sizeof(*more));
    if (!more)
        return nyb_no_memory(err, "losses", 1, sizeof(*more));
    *more = (nyb_known_loss){.next = s->losses[layer->index], .grid = *grid, .loss = *loss};
    s->losses[layer->index] = more;
    return NYB_OK;
}

nyb_status nyb_shared_measure(nyb_shared *shared, const nyb_context *ctx,
                              const nyb_shared_layer *layer, const nyb_grid_params *grid,
                              nyb_gptq_report *report, nyb_err *err)
{
    const double start = nyb_seconds();
    if (!shared->losses)
        shared->losses = nyb_arena_alloc(&shared->arena, layer->count, sizeof(nyb_known_loss *));
    if (!shared->losses)
        return nyb_no_memory(err, "losses", layer->count, sizeof(nyb_known_loss *));
    nyb_status status = look_up(shared, ctx, layer, grid, &report->rtn_loss, err);
    if (status == NYB_OK)
        status = look_up(shared, ctx, layer, &(nyb_grid_params){0}, &report->output_energy, err);
    report->relative_error =
        report->output_energy > 0.0 ? report->loss / report->output_energy : 0.0;
    report->seconds += nyb_seconds() - start;
    return status;
}
