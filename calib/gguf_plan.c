#include "calib/gguf_plan.h"

#include <math.h>
#include <string.h>

#include "calib/gguf_blocks.h"
#include "calib/importance.h"
#include "core/dtype.h"
#include "core/file.h"
#include "formats/safetensors.h"
#include "model/gguf_config.h"

// Types that can be asked for, and llama.cpp's number for files of them.
static const struct {
    nyb_dtype dtype;
    uint32_t file_type;
} types[] = {
    {NYB_F32, 0},   {NYB_F16, 1},   {NYB_BF16, 32}, {NYB_Q4_0, 2},  {NYB_Q4_1, 3},
    {NYB_Q5_0, 8},  {NYB_Q5_1, 9},  {NYB_Q8_0, 7},  {NYB_Q2_K, 10}, {NYB_Q3_K, 11},
    {NYB_Q4_K, 14}, {NYB_Q5_K, 16}, {NYB_Q6_K, 18},
};

enum { TYPES = sizeof(types) / sizeof(types[0]) };

bool nyb_gguf_type_named(const char *name, nyb_dtype *out)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (strcmp(nyb_dtype_name(types[i].dtype), name) == 0) {
            *out = types[i].dtype;
            return true;
        }
    }
    return false;
}

static uint32_t file_type_of(nyb_dtype dtype)
{
    uint32_t found = 0;
    for (size_t i = 0; i < TYPES; i++)
        found = types[i].dtype == dtype ? types[i].file_type : found;
    return found;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// The head reads every token's row at once and is rounded more finely, as llama-quantize does it.
static nyb_dtype wanted_type(const nyb_gguf_plan *p, const nyb_gguf_item *item)
{
    const bool is_head =
        strcmp(item->name, "output.weight") == 0 ||
        (nyb_model_config_of(p->model)->tied && strcmp(item->name, "token_embd.weight") == 0);
    const nyb_dtype dtype = p->params->dtype;
    if (item->rank < 2)
        return NYB_F32;
    if (is_head && nyb_dtype_is_block(dtype) && dtype != NYB_Q8_0)
        return NYB_Q6_K;
    return dtype;
}

static nyb_status settle(nyb_gguf_plan *p, nyb_gguf_item *item, nyb_err *err)
{
    item->name = nyb_gguf_file_name(&p->arena, p->arch, item->folder_name);
    if (!item->name)
        return nyb_no_memory(err, "tensor names", 1, 1);
    if (strcmp(item->name, item->folder_name) == 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: GGUF has no name for tensor '%s'",
                        p->params->model, item->folder_name);
    item->cols = item->rank ? item->shape[item->rank - 1] : 1;
    item->rows = 1;
    for (unsigned i = 0; i + 1 < item->rank; i++)
        item->rows *= item->shape[i]; // the source's size was checked
    item->asked = wanted_type(p, item);
    item->dtype = nyb_gguf_fitting(item->asked, item->cols);
    const nyb_block_size block = nyb_dtype_block(item->dtype);
    item->row_bytes = item->cols / block.values * block.bytes;

    const nyb_model_config *const config = nyb_model_config_of(p->model);
    const bool q = ends_with(item->folder_name, "self_attn.q_proj.weight") ||
                   ends_with(item->folder_name, "self_attn.q_proj.bias");
    const bool k = ends_with(item->folder_name, "self_attn.k_proj.weight") ||
                   ends_with(item->folder_name, "self_attn.k_proj.bias");
    if (p->arch->paired && (q || k))
        item->paired = config->head_dim;
    if (item->paired && item->rank != 2)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: biases of q and k are not written to a GGUF file of this "
                        "architecture ('%s')",
                        p->params->model, item->folder_name);
    if (p->arch->norm_plus_one && ends_with(item->folder_name, "norm.weight"))
        item->added = 1.0f;
    return NYB_OK;
}

// The quantised linear that a tensor is a part of; a bias is a tensor of its own.
static const nyb_linear *owner_of(const nyb_linear *linear, const char *name)
{
    const size_t length = strlen(linear->module);
    if (!linear->quantized || strncmp(name, linear->module, length) != 0 || name[length] != '.')
        return NULL;
    return strcmp(name + length, ".bias") == 0 ? NULL : linear;
}

static bool is_packing(const nyb_model *m, const char *name)
{
    bool found = owner_of(nyb_model_head(m), name) != NULL;
    for (size_t b = 0; b < nyb_block_count(m) && !found; b++) {
        for (size_t i = 0; i < nyb_linear_count(m, b) && !found; i++)
            found = owner_of(nyb_linear_at(m, b, i), name) != NULL;
    }
    return found;
}

static nyb_status add_source(nyb_gguf_plan *p, const nyb_tensor *t, nyb_err *err)
{
    nyb_gguf_item *const item = &p->items[p->count++];
    *item = (nyb_gguf_item){.folder_name = t->name, .source = t, .rank = t->rank};
    memcpy(item->shape, t->shape, sizeof(item->shape));
    if (!nyb_dtype_is_float(t->dtype) && !nyb_dtype_is_block(t->dtype))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: tensor '%s' is %s, which is not rounded",
                        p->params->model, t->name, nyb_dtype_name(t->dtype));
    return settle(p, item, err);
}

static nyb_status add_linear(nyb_gguf_plan *p, const nyb_linear *linear, nyb_err *err)
{
    if (!linear->quantized)
        return NYB_OK;
    nyb_gguf_item *const item = &p->items[p->count++];
    *item = (nyb_gguf_item){
        .folder_name = nyb_arena_format(&p->arena, "%s.weight", linear->module),
        .linear = linear,
        .rank = 2,
        .shape = {linear->rows, linear->cols},
    };
    return item->folder_name ? settle(p, item, err) : nyb_no_memory(err, "tensor names", 1, 1);
}

static nyb_status add_items(nyb_gguf_plan *p, nyb_err *err)
{
    const nyb_model *const m = p->model;
    const nyb_checkpoint *const source = nyb_model_checkpoint(m);
    size_t room = nyb_checkpoint_count(source) + 2;
    for (size_t b = 0; b < nyb_block_count(m); b++)
        room += nyb_linear_count(m, b);
    p->items = nyb_arena_alloc(&p->arena, room, sizeof(*p->items));
    if (!p->items)
        return nyb_no_memory(err, "tensors", room, sizeof(*p->items));

    nyb_status status = NYB_OK;
    for (size_t i = 0; i < nyb_checkpoint_count(source) && status == NYB_OK; i++) {
        const nyb_tensor *const t = nyb_checkpoint_at(source, i);
        if (!ends_with(t->name, ".rotary_emb.inv_freq") &&
            (!nyb_model_quantization(m) || !is_packing(m, t->name)))
            status = add_source(p, t, err);
    }
    for (size_t b = 0; b < nyb_block_count(m) && status == NYB_OK; b++) {
        for (size_t i = 0; i < nyb_linear_count(m, b) && status == NYB_OK; i++)
            status = add_linear(p, nyb_linear_at(m, b, i), err);
    }
    return status == NYB_OK ? add_linear(p, nyb_model_head(m), err) : status;
}

// ---- Metadata -------------------------------------------------------------------------------

static const char *base_name(const char *path)
{
    const char *const slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static nyb_status add_metadata(nyb_gguf_plan *p, nyb_err *err)
{
    const char *const folder = p->params->names ? p->params->names : p->params->model;
    const char *const path = nyb_path_join(&p->arena, folder, "config.json");
    const float *divisors = NULL;
    size_t count = 0;
    json_t *doc = NULL;
    nyb_status status = path ? nyb_json_load(&doc, path, err) : nyb_no_memory(err, "path", 1, 1);
    const char *const type = json_string_value(json_object_get(doc, "model_type"));
    p->arch = type ? nyb_gguf_arch_of_model(type) : NULL;
    if (status == NYB_OK)
        status = nyb_gguf_add_config(&p->head, doc, path, &divisors, &count, err);
    json_decref(doc);
    if (status != NYB_OK)
        return status;
    nyb_gguf_add_text(&p->head, "general.name", base_name(folder));
    nyb_gguf_add_u32(&p->head, "general.file_type", file_type_of(p->params->dtype));
    nyb_gguf_add_u32(&p->head, "general.quantization_version", 2);
    status = nyb_gguf_add_tokenizer(&p->head, folder, nyb_model_config_of(p->model)->vocab, err);
    if (status == NYB_OK)
        status = add_items(p, err);
    if (status == NYB_OK && divisors)
        p->items[p->count++] = (nyb_gguf_item){.name = "rope_freqs.weight",
                                               .folder_name = "",
                                               .values = divisors,
                                               .rank = 1,
                                               .shape = {count},
                                               .rows = 1,
                                               .cols = count,
                                               .row_bytes = count * sizeof(float)};
    return status;
}

// A GGUF file again, with tensors of another type.
static nyb_status copy_metadata(nyb_gguf_plan *p, const nyb_gguf *file, nyb_err *err)
{
    static const char *const replaced[] = {"general.alignment", "general.file_type",
                                           "general.quantization_version"};
    nyb_gguf_text arch = {"", 0};
    nyb_status status = nyb_gguf_string(file, "general.architecture", &arch, err);
    p->arch = nyb_gguf_arch_named(arch.at, arch.length);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < file->value_count; i++) {
        bool keep = true;
        for (size_t k = 0; k < sizeof(replaced) / sizeof(replaced[0]); k++)
            keep = keep && strcmp(file->values[i].key, replaced[k]) != 0;
        if (keep)
            nyb_gguf_add_value(&p->head, &file->values[i]);
    }
    nyb_gguf_add_u32(&p->head, "general.file_type", file_type_of(p->params->dtype));
    nyb_gguf_add_u32(&p->head, "general.quantization_version", 2);
    status = add_items(p, err);
    for (size_t i = 0; i < file->count && status == NYB_OK; i++) {
        const nyb_tensor *const t = &file->tensors[i];
        if (strcmp(t->name, "rope_freqs.weight") == 0)
            p->items[p->count++] = (nyb_gguf_item){.name = t->name,
                                                   .folder_name = "",
                                                   .source = t,
                                                   .rank = 1,
                                                   .shape = {t->shape[0]},
                                                   .rows = 1,
                                                   .cols = t->shape[0],
                                                   .row_bytes = t->bytes};
    }
    return status;
}

#define DIFFERS(field)                                                                             \
    if (a->field != b->field)                                                                      \
    return #field

static bool far(double a, double b)
{
    return fabs(a - b) > 1e-6 * fabs(a);
}

static const char *rope_difference(const nyb_rope_config *a, const nyb_rope_config *b)
{
    DIFFERS(kind);
    DIFFERS(dims);
    DIFFERS(whole);
    if (far(a->theta, b->theta))
        return "rope_theta";
    if (far(a->factor, b->factor) || far(a->low_freq, b->low_freq) ||
        far(a->high_freq, b->high_freq) || far(a->magnitude, b->magnitude) ||
        far(a->score_magnitude, b->score_magnitude) ||
        (a->kind != NYB_ROPE_LINEAR && far(a->original_positions, b->original_positions)))
        return "rope_scaling";
    return NULL;
}

// What two configurations do not share of the arithmetic; NULL: nothing.
static const char *difference(const nyb_model_config *a, const nyb_model_config *b)
{
    DIFFERS(hidden);
    DIFFERS(blocks);
    DIFFERS(heads);
    DIFFERS(kv_heads);
    DIFFERS(head_dim);
    DIFFERS(value_dim);
    DIFFERS(embed_dim);
    DIFFERS(intermediate);
    DIFFERS(vocab);
    DIFFERS(window);
    DIFFERS(pre_norm);
    DIFFERS(parallel);
    DIFFERS(tied);
    DIFFERS(qkv_bias);
    DIFFERS(o_bias);
    DIFFERS(mlp_bias);
    DIFFERS(qk_norm);
    DIFFERS(alibi);
    DIFFERS(interleaved);
    DIFFERS(scale_by_block);
    DIFFERS(rope_count);
    DIFFERS(latent.kv_rank);
    DIFFERS(experts.count);
    DIFFERS(labels);
    if (memcmp(a->traits, b->traits, a->blocks) != 0)
        return "layer_types";
    if (a->activation.apply != b->activation.apply)
        return "hidden_act";
    if (far(a->norm_eps, b->norm_eps))
        return "rms_norm_eps";
    if (far(a->score_scale, b->score_scale) || far(a->score_cap, b->score_cap) ||
        far(a->logit_cap, b->logit_cap) || far(a->embed_scale, b->embed_scale) ||
        far(a->tune_scale, b->tune_scale))
        return "scales";
    const char *found = NULL;
    for (size_t i = 0; i < a->rope_count && !found; i++)
        found = rope_difference(&a->ropes[i], &b->ropes[i]);
    return found;
}

// The metadata, read as any reader reads them, have to describe the model that they came from:
// what GGUF has no word for would else be left out silently.
static nyb_status check_metadata(nyb_gguf_plan *p, nyb_tensor *tensors, nyb_err *err)
{
    nyb_gguf file = {0};
    json_t *doc = NULL;
    nyb_model_config *const read = nyb_arena_alloc(&p->arena, 1, sizeof(*read));
    const void *bytes = NULL;
    size_t length = 0;
    nyb_status status = nyb_gguf_head_bytes(&p->head, &bytes, &length, err);
    if (!read)
        status = nyb_no_memory(err, "a configuration", 1, sizeof(*read));
    if (status == NYB_OK)
        status = nyb_gguf_parse(&file, bytes, length, p->params->out, err);
    if (status == NYB_OK) {
        file.tensors = tensors;
        file.count = p->count;
        status = nyb_gguf_config(&doc, &file, err);
    }
    if (status == NYB_OK)
        status = nyb_model_config_read(read, doc, p->params->out, err);
    json_decref(doc);
    nyb_gguf_close(&file);
    const char *const other =
        status == NYB_OK ? difference(nyb_model_config_of(p->model), read) : NULL;
    if (other)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a GGUF file of this architecture cannot say what the model has as "
                        "'%s'",
                        p->params->model, other);
    return status;
}

static nyb_status finish(nyb_gguf_plan *p, nyb_err *err)
{
    nyb_tensor *const tensors = nyb_arena_alloc(&p->arena, p->count, sizeof(*tensors));
    const char **const names = nyb_arena_alloc(&p->arena, p->count, sizeof(*names));
    size_t *const offsets = nyb_arena_alloc(&p->arena, p->count, sizeof(*offsets));
    if (!tensors || !names || !offsets)
        return nyb_no_memory(err, "tensors", p->count, sizeof(*tensors));
    for (size_t i = 0; i < p->count; i++) {
        names[i] = p->items[i].name;
        tensors[i] = (nyb_tensor){.name = names[i],
                                  .dtype = p->items[i].dtype,
                                  .rank = p->items[i].rank,
                                  .at = p->items[i].values   ? (const void *) p->items[i].values
                                        : p->items[i].source ? p->items[i].source->at
                                                             : NULL};
        memcpy(tensors[i].shape, p->items[i].shape, sizeof(tensors[i].shape));
    }
    nyb_status status = check_metadata(p, tensors, err);
    if (status != NYB_OK)
        return status;
    status = nyb_gguf_finish(&p->head, tensors, names, p->count, offsets, &p->bytes, err);
    for (size_t i = 0; i < p->count; i++)
        p->items[i].offset = offsets[i];
    return status;
}

// What the importance matrix knows of each matrix. That of another model fits none of them.
static nyb_status weigh_items(nyb_gguf_plan *p, const nyb_gguf *file, nyb_err *err)
{
    nyb_status status = NYB_OK;
    size_t known = 0;
    for (size_t i = 0; i < p->count && status == NYB_OK; i++) {
        nyb_gguf_item *const item = &p->items[i];
        if (item->rank != 2 || !nyb_dtype_is_block(item->dtype))
            continue;
        status = nyb_importance_of(&item->importance, file, &p->arena, item->name, item->cols, err);
        known += item->importance != NULL;
    }
    if (status == NYB_OK && known == 0)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: knows none of the matrices of %s", file->path,
                          p->params->model);
    return status;
}

static nyb_status read_importance(nyb_gguf_plan *p, nyb_err *err)
{
    nyb_gguf file;
    if (!p->params->imatrix)
        return NYB_OK;
    nyb_status status = nyb_importance_open(&file, p->params->imatrix, err);
    if (status != NYB_OK)
        return status;
    status = weigh_items(p, &file, err);
    nyb_gguf_close(&file);
    return status;
}

nyb_status nyb_gguf_plan_open(nyb_gguf_plan *out, const nyb_gguf_params *params, nyb_err *err)
{
    *out = (nyb_gguf_plan){.params = params};
    nyb_status status = nyb_model_open(&out->model, params->model, err);
    if (status == NYB_OK) {
        const nyb_gguf *const file = nyb_checkpoint_gguf(nyb_model_checkpoint(out->model));
        status = file ? copy_metadata(out, file, err) : add_metadata(out, err);
    }
    if (status == NYB_OK)
        status = read_importance(out, err);
    if (status == NYB_OK)
        status = finish(out, err);
    if (status != NYB_OK)
        nyb_gguf_plan_close(out);
    return status;
}

void nyb_gguf_plan_close(nyb_gguf_plan *plan)
{
    nyb_gguf_head_clear(&plan->head);
    nyb_model_close(plan->model);
    nyb_arena_clear(&plan->arena);
    *plan = (nyb_gguf_plan){0};
}
