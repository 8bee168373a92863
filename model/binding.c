#include "model/binding.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/qweight.h"
#include "model/config_wrapper.h"

static const char *shape_text(nyb_arena *arena, unsigned rank, const size_t *shape)
{
    char *text = nyb_arena_text(arena, "[", 1);
    for (unsigned i = 0; text && i < rank; i++)
        text = nyb_arena_format(arena, "%s%s%zu", text, i ? ", " : "", shape[i]);
    return text ? text : "[";
}

nyb_status nyb_bind_tensor(const nyb_tensor **out, nyb_model *m, const char *name, size_t rows,
                           size_t cols, nyb_err *err)
{
    const size_t want[2] = {rows, cols};
    const unsigned rank = cols ? 2 : 1;
    if (!name)
        return nyb_no_memory(err, "a tensor's name", 1, 1);
    const nyb_status status = nyb_checkpoint_get(out, m->checkpoint, name, err);
    if (status != NYB_OK)
        return status;

    const nyb_tensor *const t = *out;
    const char *const file = nyb_checkpoint_file_of(m->checkpoint, t);
    if (t->rank != rank || memcmp(t->shape, want, rank * sizeof(want[0])) != 0)
        return nyb_fail(
            err, NYB_E_FORMAT, "%s: tensor '%s' has shape %s], config.json makes it %s]", file,
            name, shape_text(&m->arena, t->rank, t->shape), shape_text(&m->arena, rank, want));
    if (!nyb_dtype_is_float(t->dtype) && !(cols && nyb_dtype_is_block(t->dtype)))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' is %s, supported are F32, F16 and BF16", file, name,
                        nyb_dtype_name(t->dtype));
    return NYB_OK;
}

nyb_status nyb_bind_linear(nyb_linear *out, nyb_model *m, bool biased, nyb_err *err)
{
    nyb_quantized answer;
    nyb_status status =
        nyb_quantization_find(&answer, m->quantization, m->checkpoint, out->module, err);
    if (status != NYB_OK)
        return status;
    out->quantized = answer.layout != NULL;
    out->kind = answer.spec.kind;
    if (out->quantized)
        status = nyb_quantization_input_scale(&out->input_scale, m->checkpoint, out->module, err);
    if (status != NYB_OK)
        return status;
    out->bits = answer.spec.bits;
    out->group_size = answer.spec.group_size;
    out->transposed &= nyb_checkpoint_gguf(m->checkpoint) == NULL; // its writers turn them back
    if (!out->quantized)
        status = nyb_bind_tensor(
            &out->weight, m, nyb_arena_format(&m->arena, "%s.weight", out->module),
            out->transposed ? out->cols : out->rows, out->transposed ? out->rows : out->cols, err);
    if (status != NYB_OK)
        return status;

    // Writers of quantised layers may add a bias that config.json knows nothing of.
    const char *const name = nyb_arena_format(&m->arena, "%s.bias", out->module);
    const bool there = name && nyb_checkpoint_find(m->checkpoint, name);
    if (there && !biased && !out->quantized)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' is there, but config.json says that there is no bias",
                        m->folder, name);
    out->stray_bias = there && !biased;
    if (there || biased)
        status = nyb_bind_tensor(&out->bias, m, name, out->rows, 0, err);
    return status;
}

// ---- Beside the blocks ---------------------------------------------------------------------

// Whether the file has a weight of the module, in whatever layout.
static bool has_weight(const nyb_model *m, nyb_arena *arena, const char *module)
{
    static const char *const parts[] = {"weight", "qweight", "weight_packed"};
    for (size_t k = 0; module && k < sizeof(parts) / sizeof(parts[0]); k++) {
        const char *const name = nyb_arena_format(arena, "%s.%s", module, parts[k]);
        if (name && nyb_checkpoint_find(m->checkpoint, name))
            return true;
    }
    return false;
}

// Files of a model without its head leave out the start of the names, or all of the prefix.
// Whether the embedding lies behind `outer` and a part of the prefix.
static bool try_prefix(nyb_model *m, const char *outer)
{
    const nyb_arch *const arch = m->config.arch;
    for (const char *prefix = arch->prefix;; prefix = strchr(prefix, '.') + 1) {
        const char *const module =
            nyb_arena_format(&m->arena, "%s%s%s", outer, prefix, arch->embedding);
        const char *const whole = nyb_arena_format(&m->arena, "%s%s", outer, prefix);
        if (whole && has_weight(m, &m->arena, module)) {
            m->prefix = whole;
            return true;
        }
        if (!*prefix)
            return false;
    }
}

static void find_prefix(nyb_model *m)
{
    m->prefix = m->config.arch->prefix;
    bool found = try_prefix(m, "");
    for (size_t i = 0; !found && m->config.wrapped && nyb_wrapper_prefix(i); i++)
        found = try_prefix(m, nyb_wrapper_prefix(i));
}

// The head's module, which a multimodal model may have inside its language model.
static const char *find_head(nyb_model *m)
{
    const char *const plain = m->config.arch->head;
    for (size_t i = 0; m->config.wrapped && nyb_wrapper_prefix(i); i++) {
        const char *const module =
            nyb_arena_format(&m->arena, "%s%s", nyb_wrapper_prefix(i), plain);
        if (has_weight(m, &m->arena, module))
            return module;
    }
    return plain;
}

static const char *outer_name(nyb_model *m, const char *module, const char *what)
{
    return nyb_arena_format(&m->arena, "%s%s.%s", m->prefix, module, what);
}

const char *nyb_norm_part(nyb_model *m, const char *module, bool bias)
{
    const char *const old = nyb_arena_format(&m->arena, "%s.%s", module, bias ? "beta" : "gamma");
    if (old && nyb_checkpoint_find(m->checkpoint, old))
        return old;
    return nyb_arena_format(&m->arena, "%s.%s", module, bias ? "bias" : "weight");
}

static nyb_status bind_norm(nyb_model *m, const nyb_tensor **gain, const nyb_tensor **bias,
                            const char *module, nyb_err *err)
{
    if (!module || m->config.no_norm_gains)
        return NYB_OK;
    const size_t width = m->config.hidden;
    const char *const full = nyb_arena_format(&m->arena, "%s%s", m->prefix, module);
    if (!full)
        return nyb_no_memory(err, "a tensor's name", 1, 1);
    const nyb_status status =
        nyb_bind_tensor(gain, m, nyb_norm_part(m, full, false), width, 0, err);
    if (status != NYB_OK || m->config.arch->norm != NYB_NORM_LAYER)
        return status;
    return nyb_bind_tensor(bias, m, nyb_norm_part(m, full, true), width, 0, err);
}

static nyb_status bind_projections(nyb_model *m, nyb_err *err)
{
    const nyb_model_config *const c = &m->config;
    nyb_outer *const o = &m->outer;
    if (c->embed_dim == c->hidden)
        return NYB_OK;
    o->project_in = (nyb_linear){.rows = c->hidden, .cols = c->embed_dim};
    o->project_out = (nyb_linear){.rows = c->embed_dim, .cols = c->hidden};
    nyb_status status =
        nyb_bind_tensor(&o->project_in.weight, m, outer_name(m, c->arch->project_in, "weight"),
                        c->hidden, c->embed_dim, err);
    if (status == NYB_OK)
        status = nyb_bind_tensor(&o->project_out.weight, m,
                                 outer_name(m, c->arch->project_out, "weight"), c->embed_dim,
                                 c->hidden, err);
    return status;
}

static nyb_status bind_embedding(nyb_model *m, nyb_err *err)
{
    nyb_linear *const l = &m->outer.embedding;
    const char *const module =
        nyb_arena_format(&m->arena, "%s%s", m->prefix, m->config.arch->embedding);
    if (!module)
        return nyb_no_memory(err, "a tensor's name", 1, 1);
    *l = (nyb_linear){.module = module, .rows = m->config.vocab, .cols = m->config.embed_dim};
    const nyb_status status = nyb_bind_linear(l, m, false, err);
    if (status != NYB_OK || !l->quantized)
        return status;
    return nyb_quantization_read(&m->embedding_codes, m->quantization, m->checkpoint, module,
                                 l->rows, l->cols, err);
}

// Reads a quantised head, which may be the embedding: whole numbers stay packed.
static nyb_status pack_head(nyb_model *m, nyb_err *err)
{
    nyb_qweight q;
    const char *const module = m->head_tied ? m->outer.embedding.module : m->head.module;
    nyb_status status = nyb_quantization_read(&q, m->quantization, m->checkpoint, module,
                                              m->head.rows, m->head.cols, err);
    if (status == NYB_OK && q.kind == NYB_CODE_INT)
        status = nyb_lowbit_init(&m->head_codes, &q, err);
    else if (status == NYB_OK)
        status = nyb_qweight_floats(&m->head_floats, &q, err);
    nyb_qweight_clear(&q);
    if (status != NYB_OK)
        return status;
    const nyb_weight head = nyb_model_head_weight(m);
    const size_t bytes = nyb_weight_input_bytes(&head);
    m->head_input = nyb_alloc(bytes, 1);
    return m->head_input ? NYB_OK : nyb_no_memory(err, "the input of the output head", bytes, 1);
}

// A head of its own is used even where config.json ties it to the embedding: the file has the
// last word.
static nyb_status bind_head(nyb_model *m, nyb_err *err)
{
    const char *const module = find_head(m);
    m->head = (nyb_linear){.module = module, .rows = m->config.vocab, .cols = m->config.embed_dim};
    if (m->config.tied && !has_weight(m, &m->arena, module)) {
        m->head = m->outer.embedding;
        m->head.module = module;
        m->head_tied = true;
        return m->head.quantized ? pack_head(m, err) : NYB_OK;
    }
    const nyb_status status = nyb_bind_linear(&m->head, m, false, err);
    return status == NYB_OK && m->head.quantized ? pack_head(m, err) : status;
}

static nyb_status bind_classifier(nyb_model *m, nyb_err *err)
{
    const nyb_arch_classifier *const names = &m->config.arch->classifier;
    const size_t hidden = m->config.hidden;
    m->outer.dense = (nyb_linear){.module = names->dense, .rows = hidden, .cols = hidden};
    m->head = (nyb_linear){.module = names->out, .rows = m->config.labels, .cols = hidden};
    const nyb_status status = nyb_bind_linear(&m->outer.dense, m, true, err);
    return status == NYB_OK ? nyb_bind_linear(&m->head, m, true, err) : status;
}

nyb_status nyb_bind_outer(nyb_model *m, nyb_err *err)
{
    const nyb_model_config *const c = &m->config;
    const nyb_arch *const arch = c->arch;
    nyb_outer *const o = &m->outer;
    find_prefix(m);
    nyb_status status = bind_embedding(m, err);
    if (status == NYB_OK && arch->position)
        status = nyb_bind_tensor(&o->position, m, outer_name(m, arch->position, "weight"),
                                 c->positions + arch->position_offset, c->hidden, err);
    if (status == NYB_OK && arch->token_type)
        status = nyb_bind_tensor(&o->token_type, m, outer_name(m, arch->token_type, "weight"),
                                 c->token_types, c->hidden, err);
    if (status == NYB_OK)
        status =
            bind_norm(m, &o->embedding_norm, &o->embedding_norm_bias, arch->embedding_norm, err);
    if (status == NYB_OK && !c->no_final_norm)
        status = bind_norm(m, &o->final_norm, &o->final_norm_bias, arch->final_norm, err);
    if (status == NYB_OK)
        status = bind_projections(m, err);
    if (status == NYB_OK)
        status = c->bare ? NYB_OK : c->labels ? bind_classifier(m, err) : bind_head(m, err);
    return status;
}

// ---- Leftovers -----------------------------------------------------------------------------

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

// Whether `name` is module + ".weight", ".bias" where there is one, or any part of a quantised
// layer.
static bool belongs_to(const char *name, const nyb_linear *linear)
{
    if (!linear->module)
        return false;
    const size_t length = strlen(linear->module);
    if (!starts_with(name, linear->module) || name[length] != '.')
        return false;
    return linear->quantized || strcmp(name + length, ".weight") == 0 ||
           (linear->bias && strcmp(name + length, ".bias") == 0);
}

static bool is_known_in_block(const nyb_model *m, const nyb_tensor *t, size_t block)
{
    const nyb_bound_block *const b = &m->blocks[block];
    for (size_t v = 0; v < NYB_VECTORS; v++) {
        if (b->vectors[v] == t)
            return true;
    }
    for (size_t i = 0; i < b->linear_count; i++) {
        if (b->linears[i].weight == t || belongs_to(t->name, &b->linears[i]))
            return true;
    }
    return false;
}

static bool is_outer(const nyb_model *m, const nyb_tensor *t)
{
    const nyb_outer *const o = &m->outer;
    const nyb_tensor *const all[] = {
        o->position,   o->token_type,      o->embedding_norm,    o->embedding_norm_bias,
        o->final_norm, o->final_norm_bias, o->project_in.weight, o->project_out.weight,
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] == t)
            return true;
    }
    return o->embedding.weight == t || belongs_to(t->name, &o->embedding) ||
           belongs_to(t->name, &m->head) || belongs_to(t->name, &o->dense);
}

static bool is_known(const nyb_model *m, const nyb_tensor *t)
{
    const char *const name = t->name, *const *ignored = m->config.arch->ignored;
    const size_t prefix = strlen(m->prefix), start = strlen(m->config.arch->block);
    if (is_outer(m, t) || (m->config.wrapped && nyb_wrapper_is_beside(name)))
        return true;
    for (; ignored && *ignored; ignored++) {
        if (ends_with(name, *ignored))
            return true;
    }
    if (!starts_with(name, m->prefix) || !starts_with(name + prefix, m->config.arch->block))
        return false;
    const char *const digits = name + prefix + start;
    char *end = NULL;
    const unsigned long block = strtoul(digits, &end, 10);
    if (end == digits || *end != '.')
        return false;
    if (block >= m->config.blocks) // blocks that predict further tokens
        return block - m->config.blocks < m->config.extra_blocks;
    return is_known_in_block(m, t, block);
}

const char *nyb_model_plain_name(const nyb_model *m, nyb_arena *arena, const char *name)
{
    const nyb_arch *const arch = m->config.arch;
    const size_t prefix = strlen(m->prefix), head = m->head.module ? strlen(m->head.module) : 0;
    if (m->config.wrapped && nyb_wrapper_is_beside(name))
        return nyb_arena_text(arena, "", 0);
    for (size_t i = 0; arch->ignored && arch->ignored[i]; i++) {
        if (ends_with(name, arch->ignored[i]))
            return nyb_arena_text(arena, "", 0);
    }
    if (head && starts_with(name, m->head.module) && name[head] == '.')
        return nyb_arena_format(arena, "%s%s", arch->head ? arch->head : m->head.module,
                                name + head);
    return starts_with(name, m->prefix)
               ? nyb_arena_format(arena, "%s%s", arch->prefix, name + prefix)
               : nyb_arena_text(arena, name, strlen(name));
}

nyb_status nyb_check_leftovers(const nyb_model *m, nyb_err *err)
{
    for (size_t i = 0; i < nyb_checkpoint_count(m->checkpoint); i++) {
        const nyb_tensor *const t = nyb_checkpoint_at(m->checkpoint, i);
        if (!is_known(m, t))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: tensor '%s' is no part of a model of type '%s' with %zu layers",
                            nyb_checkpoint_file_of(m->checkpoint, t), t->name,
                            m->config.arch->model_type, m->config.blocks);
    }
    return NYB_OK;
}

// Adds the module of a "module.weight" to the list.
static void add_module(nyb_model *m, const char **names, size_t *count, const nyb_tensor *weight)
{
    if (!weight)
        return;
    if (names)
        names[*count] = nyb_arena_text(&m->arena, weight->name, strlen(weight->name) - 7);
    (*count)++;
}

size_t nyb_model_plain_modules(nyb_model *m, const char **names)
{
    const nyb_outer *const o = &m->outer;
    // transformers calls every language model's head lm_head once it has read the file.
    const bool other = m->head.module && strcmp(m->head.module, "lm_head") != 0;
    const char *const full[] = {m->head.module, o->dense.module, other ? "lm_head" : NULL};
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        if (full[i] && names)
            names[count] = full[i];
        count += full[i] != NULL;
    }
    for (size_t i = 0; m->config.wrapped && nyb_wrapper_pattern(i); i++, count++)
        if (names)
            names[count] = nyb_wrapper_pattern(i);
    add_module(m, names, &count, o->project_in.weight);
    add_module(m, names, &count, o->project_out.weight);
    for (size_t b = 0; b < m->config.blocks; b++) {
        add_module(m, names, &count, m->blocks[b].vectors[NYB_VECTOR_ROUTER]);
        add_module(m, names, &count, m->blocks[b].vectors[NYB_VECTOR_SHARED_GATE]);
    }
    return count;
}
