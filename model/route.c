// Which experts a token goes to, and with what weight.
#include <math.h>
#include <string.h>

#include "core/linalg.h"
#include "core/threads.h"
#include "model/norm.h"
#include "model/stages.h"

enum { ROUTE_TILE = 32 }; // tokens of one task

typedef struct router {
    nyb_batch *batch;
    const nyb_model_config *config;
    nyb_norm norm;
    bool normed;
    nyb_mat matrix;          // [experts, hidden]
    const float *correction; // [experts], NULL: none
} router;

// The index of the largest value that is not -infinity; the first of equals.
static size_t best_of(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

// What a group of experts counts as: its best, or its two best.
static float group_score(const float *x, size_t n, bool by_two)
{
    const size_t first = best_of(x, n);
    float second = -INFINITY;
    for (size_t i = 0; by_two && i < n; i++)
        second = i != first && x[i] > second ? x[i] : second;
    return by_two ? x[first] + second : x[first];
}

// Leaves only the experts of the best groups in the choice.
static void keep_groups(const router *r, float *choice)
{
    const nyb_experts_config *const e = &r->config->experts;
    const size_t each = e->count / e->groups;
    const bool by_two = r->config->arch->experts.group_by_two;
    bool kept[NYB_EXPERT_GROUPS] = {false};
    float scores[NYB_EXPERT_GROUPS];
    for (size_t g = 0; g < e->groups; g++)
        scores[g] = group_score(choice + g * each, each, by_two);
    for (size_t i = 0; i < e->best_groups; i++) {
        const size_t best = best_of(scores, e->groups);
        kept[best] = true;
        scores[best] = -INFINITY;
    }
    for (size_t i = 0; i < e->count; i++)
        choice[i] = kept[i / each] ? choice[i] : -INFINITY;
}

// Turns logits into what weighs the experts, and into what chooses them.
static void score(const router *r, float *scores, float *choice)
{
    const size_t n = r->config->experts.count;
    const nyb_routing routing = r->config->arch->experts.routing;
    double sum = 0.0;
    const double top = (double) scores[best_of(scores, n)];
    memcpy(choice, scores, n * sizeof(*scores));
    for (size_t i = 0; i < n; i++) {
        const double x = (double) scores[i];
        const double y = routing == NYB_ROUTE_SOFTMAX ? exp(x - top) : 1.0 / (1.0 + exp(-x));
        scores[i] = (float) y;
        sum += y;
    }
    for (size_t i = 0; routing == NYB_ROUTE_SOFTMAX && i < n; i++)
        scores[i] = (float) ((double) scores[i] / sum);
    if (routing != NYB_ROUTE_INPUT) // there the logits themselves choose
        memcpy(choice, scores, n * sizeof(*scores));
    for (size_t i = 0; r->correction && i < n; i++)
        choice[i] += r->correction[i];
}

// scores: logits in, weights out; those of experts that are not chosen get a minus.
static void choose(const router *r, float *scores, float *choice)
{
    const nyb_experts_config *const e = &r->config->experts;
    double sum = 0.0;
    score(r, scores, choice);
    if (e->groups > 1)
        keep_groups(r, choice);
    for (size_t i = 0; i < e->count; i++)
        scores[i] = copysignf(scores[i], -1.0f);
    for (size_t k = 0; k < e->top_k; k++) {
        const size_t best = best_of(choice, e->count);
        choice[best] = -INFINITY;
        scores[best] = copysignf(scores[best], 1.0f);
        sum += (double) scores[best];
    }
    // The signs are set by hand: at most top_k may be chosen even of scores that are no numbers.
    const double factor = e->scale / (e->normalize ? sum + 1e-20 : 1.0);
    for (size_t i = 0; i < e->count; i++) {
        const float weight = (float) (fabs((double) scores[i]) * factor);
        scores[i] = copysignf(weight, scores[i]);
    }
}

static void route_tile(void *arg, size_t index, unsigned worker)
{
    const router *const r = arg;
    nyb_batch *const b = r->batch;
    const size_t n = r->config->experts.count, hidden = b->x.cols, t0 = index * ROUTE_TILE;
    const size_t t1 = b->tokens - t0 < ROUTE_TILE ? b->tokens : t0 + ROUTE_TILE;
    const nyb_mat scores = nyb_block(b->routes.weights, t0, t1, 0, n);
    for (size_t t = t0; t < t1; t++) {
        if (r->normed)
            nyb_norm_row(&r->norm, nyb_row(b->routed, t), nyb_row(b->x, t), hidden);
        else
            memcpy(nyb_row(b->routed, t), nyb_row(b->x, t), hidden * sizeof(float));
        memset(nyb_row(b->sum, t), 0, hidden * sizeof(float));
    }
    nyb_gemm_nt(scores, nyb_block(b->routed, t0, t1, 0, hidden), r->matrix, 1.0f, 0.0f);
    for (size_t i = 0; i < scores.rows; i++)
        choose(r, nyb_row(scores, i), nyb_row(b->scratch, worker));
}

// Each expert's tokens, one expert after the other.
void nyb_batch_list_routes(nyb_batch *batch)
{
    nyb_routes *const routes = &batch->routes;
    const size_t experts = routes->weights.cols;
    size_t used = 0;
    for (size_t e = 0; e < experts; e++) {
        routes->starts[e] = used;
        for (size_t t = 0; t < batch->tokens; t++) {
            if (!signbit(nyb_row(routes->weights, t)[e]))
                routes->tokens[used++] = (uint32_t) t;
        }
    }
    routes->starts[experts] = used;
}

void nyb_route(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch)
{
    const nyb_model_config *const config = nyb_model_config_of(batch->model);
    const size_t experts = config->experts.count;
    router r = {.batch = batch,
                .config = config,
                .norm = nyb_norm_of(weights, NYB_VECTOR_MLP_NORM),
                .normed = config->arch->mlp_norm != NULL,
                .matrix = nyb_mat_of(weights->vectors[NYB_VECTOR_ROUTER], experts, config->hidden),
                .correction = weights->vectors[NYB_VECTOR_CORRECTION]};
    nyb_parallel(ctx, (batch->tokens + ROUTE_TILE - 1) / ROUTE_TILE, route_tile, &r);
    nyb_batch_list_routes(batch);
}
