// From a family's entry and a configuration to the stages of a block, with their tensors found.
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "model/binding.h"

// A block being put together.
typedef struct plan {
    nyb_model *m;
    const nyb_arch *arch;
    const nyb_model_config *config;
    nyb_bound_block *block;
    size_t index;
    nyb_columns columns;
    nyb_stage stage; // the one that linears are added to
    nyb_status status;
    nyb_err *err;
} plan;

size_t nyb_operand_columns(nyb_dtype operands, size_t width)
{
    return operands == NYB_BF16 ? (width + 1) / 2 : width;
}

nyb_columns nyb_columns_of(const nyb_model_config *c, nyb_dtype operands)
{
    nyb_columns at = {.k = c->heads * c->head_dim};
    size_t end = nyb_operand_columns(operands, c->intermediate);
    const size_t others[] = {c->hidden, c->embed_dim, c->experts.width, c->experts.shared_width};
    at.v = at.k + c->kv_heads * c->head_dim;
    at.count = at.v + c->kv_heads * c->value_dim;
    if (c->value_dim != c->head_dim) { // else it takes the queries' place
        at.out = at.count;
        at.count += c->heads * c->value_dim;
    }
    if (c->latent.kv_rank) {
        at.q_rank = at.count;
        at.kv_rank = at.q_rank + c->latent.q_rank;
        at.kv = at.kv_rank + c->latent.kv_rank + c->latent.turned;
        at.count = at.kv + c->heads * (c->latent.plain + c->value_dim);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        end = others[i] > end ? others[i] : end;
    at.work = at.count > end ? at.count : end;
    at.start = at.work;
    at.routed = at.start + (c->parallel ? c->hidden : 0);
    at.sum = at.routed + (c->experts.count ? c->hidden : 0);
    at.scores = at.sum + (c->experts.count ? c->hidden : 0);
    at.count = at.scores + c->experts.count;
    return at;
}

static const char *name_of(plan *p, const char *inside, const char *name)
{
    const char *const text = nyb_arena_format(&p->m->arena, "%s%s%zu.%s%s", p->m->prefix,
                                              p->arch->block, p->index, inside, name);
    if (!text && p->status == NYB_OK)
        p->status = nyb_no_memory(p->err, "a tensor's name", 1, 1);
    return text;
}

// ---- Tensors -------------------------------------------------------------------------------

static void add_vector(plan *p, nyb_vector vector, const char *name, size_t rows, size_t cols)
{
    const char *const full = name_of(p, "", name);
    if (p->status == NYB_OK)
        p->status = nyb_bind_tensor(&p->block->vectors[vector], p->m, full, rows, cols, p->err);
}

// A norm's gains and, for layer norms, its biases. Without them it is left without.
static void add_norm(plan *p, nyb_vector vector, const char *module, size_t width)
{
    if (!module || p->config->no_norm_gains)
        return;
    const char *const full = name_of(p, "", module);
    for (int part = 0; full && part < (p->arch->norm == NYB_NORM_LAYER ? 2 : 1); part++) {
        const int at = (int) vector + part * (int) NYB_VECTOR_BIASES;
        if (p->status == NYB_OK)
            p->status = nyb_bind_tensor(&p->block->vectors[at], p->m,
                                        nyb_norm_part(p->m, full, part == 1), width, 0, p->err);
    }
}

static nyb_linear *add_linear(plan *p, const char *inside, const char *name, size_t rows,
                              size_t out)
{
    nyb_linear *const linear = &p->block->linears[p->block->linear_count++];
    p->stage.out[p->stage.count++] = out;
    *linear = (nyb_linear){
        .module = name_of(p, inside, name),
        .rows = rows,
        .cols = p->stage.width,
        .transposed = p->arch->conv1d,
    };
    return linear;
}

static void add(plan *p, const char *inside, const char *name, size_t rows, size_t out, bool biased)
{
    nyb_linear *const linear = add_linear(p, inside, name, rows, out);
    if (p->status == NYB_OK)
        p->status = nyb_bind_linear(linear, p->m, biased, p->err);
}

// ---- Stages --------------------------------------------------------------------------------

static void begin(plan *p, nyb_source source, size_t width, int norm)
{
    p->stage = (nyb_stage){.first = p->block->linear_count,
                           .width = width,
                           .source = source,
                           .norm = norm,
                           .expert = NYB_ALL_TOKENS};
}

static nyb_stage *end(plan *p, nyb_then then)
{
    nyb_stage *const stage = &p->block->stages[p->block->stage_count++];
    p->stage.then = then;
    *stage = p->stage;
    return stage;
}

// The norm before attention or MLP, as an input of a stage.
static void begin_part(plan *p, bool mlp)
{
    const nyb_arch *const arch = p->arch;
    const bool own = mlp && arch->mlp_norm;
    int norm = -1;
    if (p->config->pre_norm && !arch->post_only)
        norm = own ? NYB_VECTOR_MLP_NORM : NYB_VECTOR_ATTENTION_NORM;
    begin(p, mlp && p->config->parallel ? NYB_FROM_START : NYB_FROM_RESIDUAL, p->config->hidden,
          norm);
}

// What follows the last linear of attention or MLP.
static nyb_stage *end_part(plan *p, bool mlp)
{
    nyb_stage *const stage = end(p, NYB_THEN_RESIDUAL);
    const char *const post = mlp ? p->arch->mlp_post_norm : p->arch->attention_post_norm;
    if (!p->config->pre_norm) {
        stage->post = NYB_POST_SUM;
        stage->post_norm = mlp ? NYB_VECTOR_MLP_NORM : NYB_VECTOR_ATTENTION_NORM;
    } else if (post) {
        stage->post = NYB_POST_OUTPUT;
        stage->post_norm = mlp ? NYB_VECTOR_MLP_POST : NYB_VECTOR_ATTENTION_POST;
    }
    return stage;
}

static void add_attention(plan *p)
{
    const nyb_model_config *const c = p->config;
    const nyb_arch *const arch = p->arch;
    const nyb_columns *const at = &p->columns;
    const size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim;
    begin_part(p, false);
    if (arch->qkv) {
        add(p, "", arch->qkv, query + 2 * key, 0, c->qkv_bias);
    } else {
        add(p, "", arch->q, query, at->q, c->qkv_bias);
        add(p, "", arch->k, key, at->k, c->qkv_bias);
        add(p, "", arch->v, key, at->v, c->qkv_bias);
    }
    end(p, NYB_THEN_ATTENTION);
    if (c->qk_norm && arch->q_norm) {
        const bool all = arch->qk_norm == NYB_QK_ALL;
        add_norm(p, NYB_VECTOR_Q_NORM, arch->q_norm, all ? query : c->head_dim);
        add_norm(p, NYB_VECTOR_K_NORM, arch->k_norm, all ? key : c->head_dim);
    }
}

static void add_latent_attention(plan *p)
{
    const nyb_model_config *const c = p->config;
    const nyb_latent_config *const l = &c->latent;
    const nyb_arch_latent *const names = &p->arch->latent;
    const size_t query = c->heads * c->head_dim;
    begin_part(p, false);
    if (l->q_rank)
        add(p, "", names->q_a, l->q_rank, p->columns.q_rank, c->qkv_bias);
    else
        add(p, "", p->arch->q, query, p->columns.q, false);
    add(p, "", names->kv_a, l->kv_rank + l->turned, p->columns.kv_rank, c->qkv_bias);
    end(p, NYB_THEN_KEEP);
    if (l->q_rank) {
        add_norm(p, NYB_VECTOR_Q_RANK_NORM, names->q_norm, l->q_rank);
        begin(p, NYB_FROM_WIDE, l->q_rank, NYB_VECTOR_Q_RANK_NORM);
        p->stage.column = p->columns.q_rank;
        add(p, "", names->q_b, query, p->columns.q, false);
        end(p, NYB_THEN_KEEP);
    }
    add_norm(p, NYB_VECTOR_KV_RANK_NORM, names->kv_norm, l->kv_rank);
    begin(p, NYB_FROM_WIDE, l->kv_rank, NYB_VECTOR_KV_RANK_NORM);
    p->stage.column = p->columns.kv_rank;
    add(p, "", names->kv_b, c->heads * (l->plain + c->value_dim), p->columns.kv, false);
    end(p, NYB_THEN_ATTENTION);
}

// The linears that widen the hidden state, whatever the MLP's kind.
static void add_widening(plan *p, const char *inside, const nyb_arch_experts *names, size_t width)
{
    const bool biased = !names && p->config->mlp_bias;
    if (!names && p->arch->gate_up) {
        add(p, inside, p->arch->gate_up, 2 * width, 0, biased);
        end(p, NYB_THEN_GATE);
        return;
    }
    const char *const gate = names ? names->gate : p->arch->gate;
    if (gate)
        add(p, inside, gate, width, 0, biased);
    add(p, inside, names ? names->up : p->arch->up, width, 0, biased);
    end(p, gate ? NYB_THEN_GATE : NYB_THEN_ACTIVATE);
}

static void add_mlp(plan *p)
{
    begin_part(p, true);
    add_widening(p, "", NULL, p->config->intermediate);
    begin(p, NYB_FROM_WIDE, p->config->intermediate, -1);
    add(p, "", p->arch->down, p->config->hidden, 0, p->config->mlp_bias);
    end_part(p, true);
}

// ---- Experts -------------------------------------------------------------------------------

// The tensor that holds all experts' matrices, NULL when each has its own.
static const nyb_tensor *fused(plan *p, const char *name, size_t rows, size_t cols)
{
    const nyb_tensor *const t =
        name ? nyb_checkpoint_find(p->m->checkpoint, name_of(p, "", name)) : NULL;
    const size_t want[] = {p->config->experts.count, cols, rows};
    if (!t || p->status != NYB_OK)
        return NULL;
    if (t->rank != 3 || memcmp(t->shape, want, sizeof(want)) != 0 || t->bytes == 0)
        p->status = nyb_fail(p->err, NYB_E_FORMAT,
                             "%s: tensor '%s' does not have the shape [%zu, %zu, %zu] that "
                             "config.json makes it",
                             nyb_checkpoint_file_of(p->m->checkpoint, t), t->name, want[0], want[1],
                             want[2]);
    else if (!nyb_dtype_is_float(t->dtype))
        p->status = nyb_fail(
            p->err, NYB_E_UNSUPPORTED, "%s: tensor '%s' is %s, supported are F32, F16 and BF16",
            nyb_checkpoint_file_of(p->m->checkpoint, t), t->name, nyb_dtype_name(t->dtype));
    return t;
}

static void add_fused(plan *p, const char *inside, const char *name, const nyb_tensor *all,
                      size_t expert, size_t first, size_t rows)
{
    nyb_linear *const linear = add_linear(p, inside, name, rows, 0);
    linear->weight = all;
    linear->transposed = true;
    linear->slice = expert;
    linear->first = first;
}

static void add_expert(plan *p, size_t expert, const nyb_tensor *gate_up, const nyb_tensor *down)
{
    const nyb_arch_experts *const names = &p->arch->experts;
    const size_t width = p->config->experts.width;
    const char *const inside = nyb_arena_format(&p->m->arena, "%s%zu.", names->experts, expert);
    if (!inside) {
        p->status = nyb_no_memory(p->err, "a tensor's name", 1, 1);
        return;
    }
    begin(p, NYB_FROM_ROUTED, p->config->hidden, -1);
    p->stage.expert = (int) expert;
    if (gate_up) {
        add_fused(p, inside, names->gate, gate_up, expert, 0, width);
        add_fused(p, inside, names->up, gate_up, expert, width, width);
        end(p, NYB_THEN_GATE);
    } else {
        add_widening(p, inside, names, width);
    }
    begin(p, NYB_FROM_WIDE, width, -1);
    p->stage.expert = (int) expert;
    if (down)
        add_fused(p, inside, names->down, down, expert, 0, p->config->hidden);
    else
        add(p, inside, names->down, p->config->hidden, 0, false);
    end(p, NYB_THEN_COLLECT);
}

static void add_shared_expert(plan *p)
{
    const nyb_arch_experts *const names = &p->arch->experts;
    const size_t width = p->config->experts.shared_width;
    begin(p, NYB_FROM_SHARED, p->config->hidden, -1);
    add_widening(p, names->shared, names, width);
    begin(p, NYB_FROM_WIDE, width, -1);
    add(p, names->shared, names->down, p->config->hidden, 0, false);
    end(p, NYB_THEN_COLLECT)->shared_gate = names->shared_gate != NULL;
}

static void add_router(plan *p)
{
    const nyb_arch_experts *const names = &p->arch->experts;
    const size_t count = p->config->experts.count, hidden = p->config->hidden;
    const char *const router = nyb_arena_format(&p->m->arena, "%s.weight", names->router);
    if (!router) {
        p->status = nyb_no_memory(p->err, "a tensor's name", 1, 1);
        return;
    }
    add_vector(p, NYB_VECTOR_ROUTER, router, count, hidden);
    if (names->correction)
        add_vector(p, NYB_VECTOR_CORRECTION, names->correction, count, 0);
    if (names->shared_gate && p->config->experts.shared_width) {
        const char *const gate = nyb_arena_format(&p->m->arena, "%s.weight", names->shared_gate);
        if (gate)
            add_vector(p, NYB_VECTOR_SHARED_GATE, gate, 1, hidden);
    }
}

static void add_experts(plan *p)
{
    const nyb_experts_config *const e = &p->config->experts;
    const nyb_arch_experts *const names = &p->arch->experts;
    p->block->stages[p->block->stage_count - 1].routes = true;
    add_router(p);
    const nyb_tensor *const gate_up =
        fused(p, names->fused_gate_up, 2 * e->width, p->config->hidden);
    const nyb_tensor *const down = fused(p, names->fused_down, p->config->hidden, e->width);
    for (size_t i = 0; p->status == NYB_OK && i < e->count; i++)
        add_expert(p, i, gate_up, down);
    if (p->status == NYB_OK && e->shared_width)
        add_shared_expert(p);
    p->block->stages[p->block->stage_count - 1].last_of_experts = true;
}

// ---- The block -----------------------------------------------------------------------------

static void add_norms(plan *p)
{
    const size_t hidden = p->config->hidden;
    add_norm(p, NYB_VECTOR_ATTENTION_NORM, p->arch->attention_norm, hidden);
    add_norm(p, NYB_VECTOR_ATTENTION_POST, p->arch->attention_post_norm, hidden);
    add_norm(p, NYB_VECTOR_MLP_NORM, p->arch->mlp_norm, hidden);
    add_norm(p, NYB_VECTOR_MLP_POST, p->arch->mlp_post_norm, hidden);
}

static void add_parts(plan *p)
{
    add_norms(p);
    if (p->config->latent.kv_rank)
        add_latent_attention(p);
    else
        add_attention(p);
    begin(p, NYB_FROM_WIDE, p->config->heads * p->config->value_dim, -1);
    p->stage.column = p->columns.out;
    add(p, "", p->arch->o, p->config->hidden, 0, p->config->o_bias);
    end_part(p, false);
    if (nyb_config_has(p->config, p->index, NYB_BLOCK_EXPERTS))
        add_experts(p);
    else
        add_mlp(p);
}

nyb_status nyb_bind_block(nyb_model *m, size_t block, nyb_err *err)
{
    enum { MOST_OF_ATTENTION = 5, MOST_OF_MLP = 3 };
    const nyb_model_config *const c = &m->config;
    const size_t experts =
        nyb_config_has(c, block, NYB_BLOCK_EXPERTS) ? c->experts.count : (size_t) 0;
    const size_t most = MOST_OF_ATTENTION + MOST_OF_MLP * (experts + 1);
    nyb_bound_block *const b = &m->blocks[block];
    b->stages = nyb_arena_alloc(&m->arena, most, sizeof(*b->stages));
    b->linears = nyb_arena_alloc(&m->arena, most, sizeof(*b->linears));
    if (!b->stages || !b->linears)
        return nyb_no_memory(err, "the list of layers", most, sizeof(*b->linears));
    plan p = {.m = m,
              .arch = c->arch,
              .config = c,
              .block = b,
              .index = block,
              .columns = nyb_columns_of(c, NYB_F32),
              .err = err};
    add_parts(&p);
    return p.status;
}
