// A model's configuration as the metadata of a GGUF file.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/gguf_config.h"

// What is being written.
typedef struct writing {
    nyb_gguf_head *head;
    const nyb_model_config *config;
    const nyb_gguf_arch *arch;
    const char *name;
    nyb_err *err;
} writing;

enum { KEY_ROOM = 128 };

static void add_size(const writing *w, const char *key, size_t value)
{
    char room[KEY_ROOM];
    (void) snprintf(room, sizeof(room), "%s.%s", w->arch->name, key);
    nyb_gguf_add_u32(w->head, room, (uint32_t) value); // config.h bounds all of them
}

static void add_real(const writing *w, const char *key, double value)
{
    char room[KEY_ROOM];
    (void) snprintf(room, sizeof(room), "%s.%s", w->arch->name, key);
    nyb_gguf_add_f32(w->head, room, (float) value);
}

static void add_word(const writing *w, const char *key, const char *value)
{
    char room[KEY_ROOM];
    (void) snprintf(room, sizeof(room), "%s.%s", w->arch->name, key);
    nyb_gguf_add_text(w->head, room, value);
}

static void add_extents(const writing *w)
{
    const nyb_model_config *const c = w->config;
    add_size(w, "embedding_length", c->hidden);
    add_size(w, "block_count", c->blocks);
    add_size(w, "attention.head_count", c->heads);
    add_size(w, "attention.head_count_kv", c->kv_heads);
    if (c->head_dim * c->heads != c->hidden) {
        add_size(w, "attention.key_length", c->head_dim);
        add_size(w, "attention.value_length", c->value_dim);
    }
    if (c->window && !w->arch->windowless)
        add_size(w, "attention.sliding_window", c->window);
    add_size(w, "feed_forward_length", c->intermediate);
    add_size(w, "context_length", c->positions);
    add_real(w,
             c->arch->norm == NYB_NORM_LAYER ? "attention.layer_norm_epsilon"
                                             : "attention.layer_norm_rms_epsilon",
             c->norm_eps);
    if (c->score_cap > 0.0)
        add_real(w, "attn_logit_softcapping", c->score_cap);
    if (c->logit_cap > 0.0)
        add_real(w, "final_logit_softcapping", c->logit_cap);
    if (w->arch->flat)
        add_word(w, "tensor_data_layout", "jploski");
}

static void add_experts(const writing *w)
{
    const nyb_model_config *const c = w->config;
    if (!c->experts.count)
        return;
    add_size(w, "expert_count", c->experts.count);
    add_size(w, "expert_used_count", c->experts.top_k);
    if (c->experts.width != c->intermediate)
        add_size(w, "expert_feed_forward_length", c->experts.width);
    if (c->experts.shared_width)
        add_size(w, "expert_shared_feed_forward_length", c->experts.shared_width);
}

static nyb_status add_llama3(const writing *w, nyb_gguf_table *out)
{
    const nyb_rope_config *const rope = &w->config->ropes[0];
    const size_t pairs = rope->dims / 2;
    float *const table = nyb_arena_alloc(&w->head->arena, pairs, sizeof(*table));
    if (!table)
        return nyb_no_memory(w->err, "rope_freqs.weight", pairs, sizeof(*table));
    if (rope->low_freq != 1.0 || rope->high_freq != 4.0 || rope->original_positions != 8192.0)
        return nyb_fail(w->err, NYB_E_UNSUPPORTED,
                        "%s: Llama 3's scaling of positions is written with its usual 1, 4 and "
                        "8192 only",
                        w->name);
    for (size_t i = 0; i < pairs; i++)
        table[i] = (float) nyb_gguf_llama3_divisor(pow(rope->theta, -(double) i / (double) pairs),
                                                   rope->factor);
    *out = (nyb_gguf_table){"rope_freqs.weight", table, pairs};
    return NYB_OK;
}

static void add_longrope(const writing *w, nyb_gguf_table tables[NYB_GGUF_TABLES])
{
    const nyb_rope_config *const rope = &w->config->ropes[0];
    add_size(w, "rope.scaling.original_context_length", (size_t) rope->original_positions);
    add_real(w, "rope.scaling.attn_factor", rope->magnitude);
    tables[0] = (nyb_gguf_table){"rope_factors_long.weight", rope->long_factors, rope->dims / 2};
    tables[1] = (nyb_gguf_table){"rope_factors_short.weight", rope->short_factors, rope->dims / 2};
}

static nyb_status add_positions(const writing *w, nyb_gguf_table tables[NYB_GGUF_TABLES])
{
    const nyb_rope_config *const rope = &w->config->ropes[0];
    if (w->config->rope_count == 0)
        return NYB_OK;
    add_real(w, "rope.freq_base", rope->theta);
    add_size(w, "rope.dimension_count", rope->dims);
    switch (rope->kind) {
    case NYB_ROPE_DEFAULT:
        return NYB_OK;
    case NYB_ROPE_LLAMA3:
        return add_llama3(w, &tables[0]);
    case NYB_ROPE_LONGROPE:
        add_longrope(w, tables);
        return NYB_OK;
    case NYB_ROPE_LINEAR:
        add_word(w, "rope.scaling.type", "linear");
        add_real(w, "rope.scaling.factor", rope->factor);
        return NYB_OK;
    case NYB_ROPE_DYNAMIC:
    case NYB_ROPE_YARN:
        break;
    }
    const char *kind = "";
    for (size_t i = 0; nyb_rope_name_at(i); i++)
        kind = nyb_rope_name_at(i)->kind == rope->kind ? nyb_rope_name_at(i)->text : kind;
    return nyb_fail(w->err, NYB_E_UNSUPPORTED,
                    "%s: positions scaled by '%s' are not written to a GGUF file", w->name, kind);
}

nyb_status nyb_gguf_add_config(nyb_gguf_head *head, const nyb_gguf_arch *arch,
                               const nyb_model_config *config, const char *name,
                               nyb_gguf_table tables[NYB_GGUF_TABLES], nyb_err *err)
{
    const writing w = {.head = head, .config = config, .arch = arch, .name = name, .err = err};
    memset(tables, 0, NYB_GGUF_TABLES * sizeof(*tables));
    nyb_gguf_add_text(head, "general.architecture", arch->name);
    add_extents(&w);
    add_experts(&w);
    return add_positions(&w, tables);
}
