#include "calib/gguf_items.h"

#include <stdlib.h>
#include <string.h>

#include "calib/gguf_blocks.h"
#include "core/dtype.h"

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// What llama.cpp wants in single precision whatever the rest is.
static bool stays_whole(const char *name)
{
    static const char *const ends[] = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
                                       "position_embd.weight"};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (ends_with(name, ends[i]))
            return true;
    }
    return false;
}

// The head reads every token's row at once and is rounded more finely, as llama-quantize does it.
static nyb_dtype wanted_type(const nyb_gguf_plan *p, const nyb_gguf_item *item)
{
    const bool tied = nyb_model_head_tied(p->model);
    const bool is_head = strcmp(item->name, "output.weight") == 0 ||
                         (tied && strcmp(item->name, "token_embd.weight") == 0);
    const nyb_dtype dtype = p->params->dtype;
    if (item->rank < 2 || stays_whole(item->name))
        return NYB_F32;
    if (is_head && nyb_dtype_is_block(dtype) && dtype != NYB_Q8_0)
        return NYB_Q6_K;
    return dtype;
}

// How the rows lie in the file.
static nyb_status settle_order(const nyb_gguf_plan *p, nyb_gguf_item *item, nyb_err *err)
{
    const nyb_model_config *const c = nyb_model_config_of(p->model);
    const char *const name = item->folder_name;
    const bool weight = ends_with(name, ".weight");
    const bool qk = strstr(name, ".self_attn.q_proj.") || strstr(name, ".self_attn.k_proj.");
    const bool qkv = strstr(name, ".self_attention.query_key_value.");
    if (!(p->arch->paired && qk) && !(p->arch->flat && qkv))
        return NYB_OK;
    if (!weight)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: biases of q and k are not written to a GGUF file of this "
                        "architecture ('%s')",
                        p->params->model, name);
    item->order.head = c->head_dim;
    if (qkv) {
        item->order.groups = c->kv_heads;
        item->order.queries = c->heads / c->kv_heads;
    }
    return NYB_OK;
}

static nyb_status settle(nyb_gguf_plan *p, nyb_gguf_item *item, nyb_err *err)
{
    item->name = nyb_gguf_file_name(&p->arena, p->arch, item->folder_name, &item->expert);
    if (!item->name)
        return nyb_no_memory(err, "tensor names", 1, 1);
    if (strcmp(item->name, item->folder_name) == 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: GGUF has no name for tensor '%s'",
                        p->params->model, item->folder_name);
    if (item->rank == 2 && item->shape[0] == 1 &&
        ends_with(item->name, "ffn_gate_inp_shexp.weight")) {
        item->rank = 1; // its readers want a vector
        item->shape[0] = item->shape[1];
    }
    item->cols = item->rank ? item->shape[item->rank - 1] : 1;
    item->rows = 1;
    for (unsigned i = 0; i + 1 < item->rank; i++)
        item->rows *= item->shape[i]; // the source's size was checked
    item->slice_rows = item->rows;
    item->asked = wanted_type(p, item);
    item->dtype = nyb_gguf_fitting(item->asked, item->cols);
    const nyb_block_size block = nyb_dtype_block(item->dtype);
    item->row_bytes = item->cols / block.values * block.bytes;
    if (p->arch->norm_plus_one && ends_with(item->folder_name, "norm.weight"))
        item->added = 1.0f;
    return settle_order(p, item, err);
}

static nyb_gguf_item *add_item(nyb_gguf_plan *p, const char *folder_name, const nyb_tensor *source,
                               const nyb_linear *linear)
{
    nyb_gguf_item *const item = &p->items[p->count++];
    *item =
        (nyb_gguf_item){.folder_name = folder_name, .slice = {source, linear}, .slice_count = 1};
    item->slices = &item->slice;
    return item;
}

static nyb_status add_source(nyb_gguf_plan *p, const nyb_tensor *t, const char *name, nyb_err *err)
{
    nyb_gguf_item *const item = add_item(p, name, t, NULL);
    item->rank = t->rank;
    memcpy(item->shape, t->shape, sizeof(item->shape));
    if (!nyb_dtype_is_float(t->dtype) && !nyb_dtype_is_block(t->dtype))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: tensor '%s' is %s, which is not rounded",
                        p->params->model, t->name, nyb_dtype_name(t->dtype));
    return settle(p, item, err);
}

static nyb_status add_linear(nyb_gguf_plan *p, const nyb_linear *linear, nyb_err *err)
{
    const char *const own = nyb_arena_format(&p->arena, "%s.weight", linear->module);
    const char *const name = own ? nyb_model_plain_name(p->model, &p->arena, own) : NULL;
    if (!name)
        return nyb_no_memory(err, "tensor names", 1, 1);
    nyb_gguf_item *const item = add_item(p, name, linear->weight, linear);
    item->rank = 2;
    item->shape[0] = linear->rows;
    item->shape[1] = linear->cols;
    return settle(p, item, err);
}

// ---- Linears by name ------------------------------------------------------------------------

static int by_module(const void *a, const void *b)
{
    return strcmp((*(const nyb_linear *const *) a)->module,
                  (*(const nyb_linear *const *) b)->module);
}

// Every linear layer with a matrix of its own, and a quantised embedding, sorted by name.
static nyb_status list_linears(const nyb_linear ***out, size_t *count, nyb_gguf_plan *p,
                               nyb_err *err)
{
    const nyb_linear *const head = nyb_model_head(p->model);
    const nyb_linear *const embedding = nyb_model_embedding(p->model);
    size_t room = 2;
    *count = 0;
    for (size_t b = 0; b < nyb_block_count(p->model); b++)
        room += nyb_linear_count(p->model, b);
    *out = nyb_arena_alloc(&p->arena, room, sizeof(**out));
    if (!*out)
        return nyb_no_memory(err, "layers", room, sizeof(**out));
    for (size_t b = 0; b < nyb_block_count(p->model); b++) {
        for (size_t i = 0; i < nyb_linear_count(p->model, b); i++)
            (*out)[(*count)++] = nyb_linear_at(p->model, b, i);
    }
    if (head->module && !nyb_model_head_tied(p->model))
        (*out)[(*count)++] = head;
    if (embedding->quantized)
        (*out)[(*count)++] = embedding;
    if (*count > 1)
        qsort((void *) *out, *count, sizeof(**out), by_module);
    return NYB_OK;
}

// The linear layer that a tensor is a part of; a bias is a tensor of its own.
static const nyb_linear *owner_of(const nyb_linear *const *linears, size_t count, const char *name)
{
    const char *const ending = strrchr(name, '.');
    const size_t length = ending ? (size_t) (ending - name) : 0;
    size_t low = 0, high = count;
    while (ending && low < high) {
        const size_t middle = low + (high - low) / 2;
        const char *const module = linears[middle]->module;
        const int side = strncmp(name, module, length);
        if (side == 0 && module[length] == '\0')
            return strcmp(ending, ".bias") == 0 ? NULL : linears[middle];
        if (side > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

// ---- All of them ----------------------------------------------------------------------------

static nyb_status add_all(nyb_gguf_plan *p, nyb_err *err)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(p->model);
    const nyb_linear **linears = NULL;
    size_t count = 0;
    nyb_status status = list_linears(&linears, &count, p, err);
    if (status != NYB_OK)
        return status;
    const size_t room = nyb_checkpoint_count(source) + count + NYB_GGUF_TABLES;
    p->items = nyb_arena_alloc(&p->arena, room, sizeof(*p->items));
    if (!p->items)
        return nyb_no_memory(err, "tensors", room, sizeof(*p->items));
    for (size_t i = 0; i < nyb_checkpoint_count(source) && status == NYB_OK; i++) {
        const nyb_tensor *const t = nyb_checkpoint_at(source, i);
        const char *const name = nyb_model_plain_name(p->model, &p->arena, t->name);
        if (!name)
            return nyb_no_memory(err, "tensor names", 1, 1);
        if (*name && !owner_of(linears, count, t->name))
            status = add_source(p, t, name, err);
    }
    for (size_t i = 0; i < count && status == NYB_OK; i++)
        status = add_linear(p, linears[i], err);
    return status;
}

static int by_name(const void *a, const void *b)
{
    const nyb_gguf_item *const left = a, *const right = b;
    const int side = strcmp(left->name, right->name);
    return side ? side : (left->expert > right->expert) - (left->expert < right->expert);
}

// Makes one item of `count` experts' items, which lie one after the other.
static nyb_status join(nyb_gguf_plan *p, nyb_gguf_item *out, const nyb_gguf_item *items,
                       size_t count, nyb_err *err)
{
    const size_t experts = nyb_model_config_of(p->model)->experts.count;
    nyb_gguf_slice *const slices = nyb_arena_alloc(&p->arena, count, sizeof(*slices));
    if (!slices)
        return nyb_no_memory(err, "experts", count, sizeof(*slices));
    for (size_t i = 0; i < count; i++) {
        slices[i] = items[i].slice;
        if (items[i].expert != (int) i || items[i].rank != 2 || count != experts)
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is there for %zu of %zu experts",
                            p->params->model, items[i].name, count, experts);
    }
    nyb_gguf_item joined = items[0];
    joined.slices = slices;
    joined.slice_count = count;
    joined.rank = 3;
    joined.shape[2] = joined.shape[1];
    joined.shape[1] = joined.shape[0];
    joined.shape[0] = count;
    joined.rows = count * joined.slice_rows;
    *out = joined;
    return NYB_OK;
}

static nyb_status join_experts(nyb_gguf_plan *p, nyb_err *err)
{
    size_t kept = 0;
    nyb_status status = NYB_OK;
    if (p->count > 1)
        qsort(p->items, p->count, sizeof(*p->items), by_name);
    for (size_t i = 0, n; i < p->count && status == NYB_OK; i += n) {
        for (n = 1; p->items[i].expert != NYB_GGUF_NO_EXPERT && i + n < p->count &&
                    strcmp(p->items[i].name, p->items[i + n].name) == 0;
             n++)
            continue;
        if (p->items[i].expert == NYB_GGUF_NO_EXPERT)
            p->items[kept] = p->items[i];
        else
            status = join(p, &p->items[kept], &p->items[i], n, err);
        kept++;
    }
    p->count = kept;
    for (size_t i = 0; i < kept; i++) {
        if (p->items[i].slice_count == 1 && p->items[i].rank < 3)
            p->items[i].slices = &p->items[i].slice;
    }
    return status;
}

nyb_status nyb_gguf_items_make(nyb_gguf_plan *p, const nyb_gguf_table tables[NYB_GGUF_TABLES],
                               nyb_err *err)
{
    nyb_status status = add_all(p, err);
    if (status == NYB_OK)
        status = join_experts(p, err);
    for (size_t i = 0; i < NYB_GGUF_TABLES && status == NYB_OK; i++) {
        if (!tables[i].name)
            continue;
        nyb_gguf_item *const item = add_item(p, "", NULL, NULL);
        item->name = tables[i].name;
        item->values = tables[i].values;
        item->expert = NYB_GGUF_NO_EXPERT;
        item->rank = 1;
        item->shape[0] = item->cols = tables[i].count;
        item->rows = item->slice_rows = 1;
        item->row_bytes = tables[i].count * sizeof(float);
    }
    return status;
}
