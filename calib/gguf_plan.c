#include "calib/gguf_plan.h"

#include <math.h>
#include <string.h>

#include "calib/gguf_items.h"
#include "calib/importance.h"
#include "core/dtype.h"
#include "core/file.h"

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

// ---- Metadata -------------------------------------------------------------------------------

static const char *base_name(const char *path)
{
    const char *const slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool has_tensor(const void *model, const char *name)
{
    const nyb_model *const m = model;
    const nyb_checkpoint *const source = nyb_model_checkpoint(m);
    nyb_arena arena = {0};
    bool found = false;
    for (size_t i = 0; i < nyb_checkpoint_count(source) && !found; i++) {
        const char *const plain =
            nyb_model_plain_name(m, &arena, nyb_checkpoint_at(source, i)->name);
        found = plain && strcmp(plain, name) == 0;
        nyb_arena_clear(&arena);
    }
    return found;
}

static void add_type(nyb_gguf_plan *p)
{
    nyb_gguf_add_u32(&p->head, "general.file_type", file_type_of(p->params->dtype));
    nyb_gguf_add_u32(&p->head, "general.quantization_version", 2);
}

static nyb_status add_metadata(nyb_gguf_plan *p, nyb_err *err)
{
    const char *const folder = p->params->names ? p->params->names : p->params->model;
    const nyb_model_config *const config = nyb_model_config_of(p->model);
    nyb_gguf_table tables[NYB_GGUF_TABLES];
    p->arch = nyb_gguf_arch_of_model(config->arch->model_type, has_tensor, p->model);
    if (!p->arch)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a model of type '%s' is not written to a GGUF file", folder,
                        config->arch->model_type);
    nyb_status status = nyb_gguf_add_config(&p->head, p->arch, config, folder, tables, err);
    if (status != NYB_OK)
        return status;
    nyb_gguf_add_text(&p->head, "general.name", base_name(folder));
    add_type(p);
    status = nyb_gguf_add_tokenizer(&p->head, folder, config->vocab, err);
    return status == NYB_OK ? nyb_gguf_items_make(p, tables, err) : status;
}

// The divisors of positions of a GGUF file.
static nyb_status copy_tables(nyb_gguf_plan *p, const nyb_gguf *file,
                              nyb_gguf_table tables[NYB_GGUF_TABLES], nyb_err *err)
{
    size_t count = 0;
    memset(tables, 0, NYB_GGUF_TABLES * sizeof(*tables));
    for (size_t i = 0; i < file->count && count < NYB_GGUF_TABLES; i++) {
        const nyb_tensor *const t = &file->tensors[i];
        if (!nyb_gguf_is_divisors(t->name) || t->rank != 1 || t->dtype != NYB_F32)
            continue;
        float *const values = nyb_arena_alloc(&p->arena, t->shape[0], sizeof(*values));
        if (!values)
            return nyb_no_memory(err, t->name, t->shape[0], sizeof(*values));
        memcpy(values, t->at, t->bytes);
        tables[count++] = (nyb_gguf_table){t->name, values, t->shape[0]};
    }
    return NYB_OK;
}

// A GGUF file again, with tensors of another type.
static nyb_status copy_metadata(nyb_gguf_plan *p, const nyb_gguf *file, nyb_err *err)
{
    static const char *const replaced[] = {"general.alignment", "general.file_type",
                                           "general.quantization_version"};
    nyb_gguf_table tables[NYB_GGUF_TABLES];
    nyb_gguf_text arch = {"", 0};
    nyb_status status = nyb_gguf_string(file, "general.architecture", &arch, err);
    p->arch = nyb_gguf_arch_of_file(file, arch);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < file->value_count; i++) {
        bool keep = true;
        for (size_t k = 0; k < sizeof(replaced) / sizeof(replaced[0]); k++)
            keep = keep && strcmp(file->values[i].key, replaced[k]) != 0;
        if (keep)
            nyb_gguf_add_value(&p->head, &file->values[i]);
    }
    add_type(p);
    status = copy_tables(p, file, tables, err);
    return status == NYB_OK ? nyb_gguf_items_make(p, tables, err) : status;
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
        (a->kind != NYB_ROPE_LINEAR && far(a->original_positions, b->original_positions)) ||
        memcmp(a->short_factors, b->short_factors, sizeof(a->short_factors)) != 0 ||
        memcmp(a->long_factors, b->long_factors, sizeof(a->long_factors)) != 0)
        return "rope_scaling";
    return NULL;
}

static const char *experts_difference(const nyb_experts_config *a, const nyb_experts_config *b)
{
    DIFFERS(count);
    if (a->count == 0)
        return NULL;
    DIFFERS(top_k);
    DIFFERS(width);
    DIFFERS(shared_width);
    DIFFERS(groups);
    DIFFERS(best_groups);
    if (a->normalize != b->normalize)
        return "norm_topk_prob";
    return far(a->scale, b->scale) ? "routed_scaling_factor" : NULL;
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
    DIFFERS(no_norm_gains);
    DIFFERS(no_final_norm);
    DIFFERS(qkv_bias);
    DIFFERS(o_bias);
    DIFFERS(mlp_bias);
    DIFFERS(qk_norm);
    DIFFERS(alibi);
    DIFFERS(interleaved);
    DIFFERS(scale_by_block);
    DIFFERS(rope_count);
    DIFFERS(latent.kv_rank);
    DIFFERS(labels);
    if (a->arch->norm != b->arch->norm || a->arch->positions != b->arch->positions)
        return "model_type";
    for (size_t i = 0; i < a->blocks; i++) {
        if ((a->traits[i] ^ b->traits[i]) & NYB_BLOCK_EXPERTS)
            return "experts in some layers";
        if (a->traits[i] != b->traits[i])
            return "layer_types";
    }
    if (a->activation.apply != b->activation.apply)
        return "hidden_act";
    if (far(a->norm_eps, b->norm_eps))
        return "rms_norm_eps";
    if (far(a->score_scale, b->score_scale) || far(a->score_cap, b->score_cap) ||
        far(a->logit_cap, b->logit_cap) || far(a->embed_scale, b->embed_scale) ||
        far(a->tune_scale, b->tune_scale))
        return "scales";
    const char *found = experts_difference(&a->experts, &b->experts);
    for (size_t i = 0; i < a->rope_count && !found; i++)
        found = rope_difference(&a->ropes[i], &b->ropes[i]);
    return found;
}

// The metadata, read as any reader reads them, have to describe the model that they came from:
// what GGUF has no word for would else be left out silently.
static nyb_status check_metadata(nyb_gguf_plan *p, nyb_tensor *tensors, nyb_err *err)
{
    nyb_gguf file = {0};
    nyb_misses misses = {0};
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
        status = nyb_model_config_look(read, &misses, doc, p->params->out, err);
    json_decref(doc);
    nyb_gguf_close(&file);
    const char *other = misses.count > 0 ? misses.text[0] : NULL;
    if (status == NYB_OK && !other)
        other = difference(nyb_model_config_of(p->model), read);
    if (other)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a GGUF file of this architecture cannot say what the model has: %s",
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
                                  .at = p->items[i].values};
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
        if (item->rank < 2 || !nyb_dtype_is_block(item->dtype))
            continue;
        status = nyb_importance_of(&item->importance, file, &p->arena, item->name,
                                   item->slice_count, item->cols, err);
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
