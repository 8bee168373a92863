// Experts: how many there are, in which blocks, and how tokens are sent to them.
#include <math.h>
#include <string.h>

#include "model/config_parts.h"

static bool is_listed(const json_t *list, size_t block)
{
    size_t index = 0;
    const json_t *value = NULL;
    json_array_foreach(list, index, value)
    {
        if (json_is_integer(value) && json_integer_value(value) == (json_int_t) block)
            return true;
    }
    return false;
}

// Three ways to say which blocks have experts: a list, a step with exceptions, a first block.
static nyb_status read_blocks(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const json_t *const listed = json_object_get(r->doc, "moe_layers");
    const json_t *const plain = json_object_get(r->doc, "mlp_only_layers");
    size_t step = 1, first = 0;
    nyb_status status = nyb_json_size(r->doc, "first_k_dense_replace", &first, r->name, err);
    if (status == NYB_OK && json_object_get(r->doc, "decoder_sparse_step"))
        status = nyb_config_size(r, &step, "decoder_sparse_step", 1, NYB_MOST_POSITIONS, err);
    if (status == NYB_OK && json_object_get(r->doc, "interleave_moe_layer_step"))
        status = nyb_config_size(r, &step, "interleave_moe_layer_step", 1, NYB_MOST_POSITIONS, err);
    for (size_t b = 0; status == NYB_OK && b < c->blocks; b++) {
        const bool has = json_is_array(listed)
                             ? is_listed(listed, b)
                             : b >= first && (b + 1) % step == 0 && !is_listed(plain, b);
        if (has)
            c->traits[b] |= NYB_BLOCK_EXPERTS;
    }
    return status;
}

static nyb_status read_groups(const nyb_config_reader *r, nyb_err *err)
{
    nyb_experts_config *const e = &r->out->experts;
    const char *method = "greedy";
    e->groups = 1;
    e->best_groups = 1;
    if (!r->out->arch->experts.always_grouped) {
        const nyb_status status = nyb_json_text(r->doc, "topk_method", &method, r->name, err);
        if (status != NYB_OK || strcmp(method, "greedy") == 0)
            return status;
        if (strcmp(method, "group_limited_greedy") != 0)
            nyb_misses_add(r->misses, "'topk_method' %.40s (greedy and group_limited_greedy are)",
                           method);
    }
    nyb_status status =
        nyb_config_size(r, &e->groups, "n_group", 1,
                        e->count < NYB_EXPERT_GROUPS ? e->count : NYB_EXPERT_GROUPS, err);
    if (status == NYB_OK)
        status = nyb_config_size(r, &e->best_groups, "topk_group", 1, e->groups, err);
    if (status != NYB_OK)
        return status;
    const size_t least = r->out->arch->experts.group_by_two ? 2 : 1;
    if (e->count % e->groups != 0 || (e->groups > 1 && e->count / e->groups < least))
        return nyb_fail(err, NYB_E_FORMAT, "%s: %zu experts cannot be cut into %zu groups", r->name,
                        e->count, e->groups);
    if (e->top_k > e->count / e->groups * e->best_groups)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: %zu groups of %zu experts do not hold the %zu 'num_experts_per_tok'",
                        r->name, e->best_groups, e->count / e->groups, e->top_k);
    return NYB_OK;
}

// Width of the shared expert; experts that are shared lie side by side in one.
static nyb_status read_shared(const nyb_config_reader *r, nyb_err *err)
{
    nyb_experts_config *const e = &r->out->experts;
    size_t count = 0;
    if (!r->out->arch->experts.shared)
        return NYB_OK;
    if (nyb_config_given(r, "shared_expert_intermediate_size"))
        return nyb_json_size(r->doc, "shared_expert_intermediate_size", &e->shared_width, r->name,
                             err);
    e->shared_width = e->width;
    if (!nyb_config_given(r, "n_shared_experts"))
        return NYB_OK;
    const nyb_status status = nyb_json_size(r->doc, "n_shared_experts", &count, r->name, err);
    if (status == NYB_OK && count > NYB_MOST_EXPERTS)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'n_shared_experts' is %zu, want at most %d",
                        r->name, count, NYB_MOST_EXPERTS);
    e->shared_width = count * e->width;
    return status;
}

static nyb_status read_count(const nyb_config_reader *r, nyb_err *err)
{
    static const char *const keys[] = {"num_local_experts", "num_experts", "n_routed_experts"};
    nyb_experts_config *const e = &r->out->experts;
    const char *key = r->out->arch->experts.count_key;
    for (size_t i = 0; i < 3; i++)
        key = nyb_config_given(r, key) ? key : keys[i];
    nyb_status status = nyb_config_size(r, &e->count, key, 0, NYB_MOST_EXPERTS, err);
    const size_t usual = r->out->arch->experts.default_top_k;
    if (status == NYB_OK)
        status = nyb_config_size(r, &e->top_k, "num_experts_per_tok",
                                 usual < e->count ? usual : e->count, e->count, err);
    e->width = r->out->intermediate;
    if (status == NYB_OK && nyb_config_given(r, "moe_intermediate_size"))
        status = nyb_config_size(r, &e->width, "moe_intermediate_size", 0, NYB_MOST_WIDTH, err);
    return status;
}

nyb_status nyb_config_experts(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    nyb_experts_config *const e = &c->experts;
    if (!c->arch->experts.count_key)
        return NYB_OK;
    nyb_status status = read_count(r, err);
    if (status == NYB_OK)
        status = read_blocks(r, err);
    if (status == NYB_OK)
        status = read_groups(r, err);
    if (status == NYB_OK)
        status = read_shared(r, err);
    if (status == NYB_OK)
        status = nyb_config_flag(r, &e->normalize, c->arch->experts.normalize, err);
    e->scale = 1.0;
    if (status == NYB_OK)
        status = nyb_json_real(r->doc, "routed_scaling_factor", &e->scale, r->name, err);
    if (status == NYB_OK && !(isfinite(e->scale) && e->scale > 0.0))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'routed_scaling_factor' is %g, want more than 0",
                        r->name, e->scale);
    // Dense blocks beside them may have a width of their own.
    if (status == NYB_OK && nyb_config_given(r, "intermediate_size_mlp"))
        status =
            nyb_config_size(r, &c->intermediate, "intermediate_size_mlp", 0, NYB_MOST_WIDTH, err);
    if (status == NYB_OK && nyb_config_given(r, "num_nextn_predict_layers"))
        status = nyb_json_size(r->doc, "num_nextn_predict_layers", &c->extra_blocks, r->name, err);
    return status;
}
