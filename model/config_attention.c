// Heads and their sizes, how scores are scaled, latent attention.
#include <math.h>

#include "model/config_parts.h"

static nyb_status read_key_heads(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const nyb_arch *const arch = c->arch;
    static const char *const keys[] = {"num_key_value_heads", "num_kv_heads", "n_head_kv"};
    const char *key = keys[0];
    for (size_t i = 0; i < 3; i++)
        key = nyb_config_given(r, keys[i]) ? keys[i] : key;

    // Only a key that is absent takes the family's own number; null means as many as heads.
    const bool silent = !json_object_get(r->doc, key) && arch->default_kv_heads;
    nyb_status status = nyb_config_size(
        r, &c->kv_heads, key, silent ? arch->default_kv_heads : c->heads, NYB_MOST_HEADS, err);
    bool one = true;
    if (status == NYB_OK && arch->multi_query) {
        status = nyb_json_bool(r->doc, "multi_query", &one, r->name, err);
        c->kv_heads = one ? 1 : c->heads;
    }
    if (status != NYB_OK)
        return status;
    if (arch->latent.kv_a)
        c->kv_heads = c->heads;
    if (c->heads % c->kv_heads != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: 'num_attention_heads' is %zu, which is no multiple of the %zu "
                        "'num_key_value_heads'",
                        r->name, c->heads, c->kv_heads);
    return NYB_OK;
}

static nyb_status read_head_dim(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    if (!nyb_config_given(r, "head_dim") && c->hidden % c->heads != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: 'hidden_size' is %zu, which is no multiple of the %zu "
                        "'num_attention_heads', and there is no 'head_dim'",
                        r->name, c->hidden, c->heads);
    const size_t derived = c->hidden / c->heads;
    const nyb_status status =
        nyb_config_size(r, &c->head_dim, "head_dim", derived ? derived : 1, NYB_MOST_HEAD_DIM, err);
    c->value_dim = c->head_dim;
    return status;
}

static nyb_status read_latent(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    nyb_latent_config *const l = &c->latent;
    const struct {
        size_t *to;
        const char *key;
        size_t high;
    } sizes[] = {
        {&l->kv_rank, "kv_lora_rank", NYB_MOST_WIDTH},
        {&l->plain, "qk_nope_head_dim", NYB_MOST_HEAD_DIM},
        {&l->turned, "qk_rope_head_dim", NYB_MOST_HEAD_DIM},
        {&c->value_dim, "v_head_dim", NYB_MOST_HEAD_DIM},
    };
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < sizeof(sizes) / sizeof(sizes[0]); i++)
        status = nyb_config_size(r, sizes[i].to, sizes[i].key, 0, sizes[i].high, err);
    if (status == NYB_OK && nyb_config_given(r, "q_lora_rank"))
        status = nyb_config_size(r, &l->q_rank, "q_lora_rank", 0, NYB_MOST_WIDTH, err);
    c->head_dim = l->plain + l->turned;
    return status;
}

static nyb_status read_cap(const nyb_config_reader *r, double *out, const char *key, nyb_err *err)
{
    if (!nyb_config_given(r, key))
        return NYB_OK;
    const nyb_status status = nyb_json_real(r->doc, key, out, r->name, err);
    if (status == NYB_OK && !(*out > 0.0 && *out < 1e9))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is %g, want a number above 0", r->name, key,
                        *out);
    return status;
}

static nyb_status read_scales(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    double scalar = c->arch->query_scalar ? 256.0 : (double) c->head_dim;
    bool scaled = true;
    nyb_status status = NYB_OK;
    if (c->arch->query_scalar) {
        status = read_cap(r, &scalar, "query_pre_attn_scalar", err);
        if (status == NYB_OK)
            status = read_cap(r, &c->score_cap, "attn_logit_softcapping", err);
        if (status == NYB_OK)
            status = read_cap(r, &c->logit_cap, "final_logit_softcapping", err);
    }
    if (status == NYB_OK && c->arch->scale_by_block) {
        status = nyb_json_bool(r->doc, "scale_attn_weights", &scaled, r->name, err);
        if (status == NYB_OK)
            status = nyb_json_bool(r->doc, "scale_attn_by_inverse_layer_idx", &c->scale_by_block,
                                   r->name, err);
    }
    c->score_scale = scaled ? 1.0 / sqrt(scalar) : 1.0;
    c->embed_scale = c->arch->scaled_embedding ? sqrt((double) c->hidden) : 1.0;
    return status;
}

static nyb_status read_tuning(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    bool tuned = true;
    double scale = 0.1;
    nyb_status status = nyb_json_bool(r->doc, "attn_temperature_tuning", &tuned, r->name, err);
    c->tune_floor = 8192.0;
    if (status == NYB_OK)
        status = read_cap(r, &scale, "attn_scale", err);
    if (status == NYB_OK)
        status = read_cap(r, &c->tune_floor, "floor_scale", err);
    c->tune_scale = tuned ? scale : 0.0;
    return status;
}

nyb_status nyb_config_attention(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const nyb_arch *const arch = c->arch;
    nyb_status status = read_key_heads(r, err);
    if (status == NYB_OK)
        status = arch->latent.kv_a ? read_latent(r, err) : read_head_dim(r, err);
    if (status == NYB_OK)
        status = read_scales(r, err);
    if (status == NYB_OK && arch->tuned)
        status = read_tuning(r, err);
    if (status == NYB_OK)
        status = nyb_config_flag(r, &c->alibi, arch->alibi, err);
    if (status == NYB_OK)
        status = nyb_config_flag(r, &c->interleaved, arch->interleaved, err);
    c->qk_norm = arch->qk_norm != NYB_QK_NONE;
    if (status == NYB_OK && arch->qk_norm == NYB_QK_UNIT)
        status = nyb_json_bool(r->doc, "use_qk_norm", &c->qk_norm, r->name, err);
    return status;
}
