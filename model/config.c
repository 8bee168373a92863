#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "model/config_parts.h"
#include "model/config_wrapper.h"

bool nyb_config_given(const nyb_config_reader *r, const char *key)
{
    const json_t *const value = json_object_get(r->doc, key);
    return value && !json_is_null(value);
}

nyb_status nyb_config_size(const nyb_config_reader *r, size_t *out, const char *key, size_t absent,
                           size_t high, nyb_err *err)
{
    size_t value = absent;
    if (absent == 0 && !nyb_config_given(r, key))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is missing", r->name, key);
    const nyb_status status = nyb_json_size(r->doc, key, &value, r->name, err);
    if (status != NYB_OK)
        return status;
    if (value < 1 || value > high)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is %zu, want 1 to %zu", r->name, key, value,
                        high);
    *out = value;
    return NYB_OK;
}

nyb_status nyb_config_flag(const nyb_config_reader *r, bool *out, nyb_flag flag, nyb_err *err)
{
    *out = flag.otherwise;
    return flag.key ? nyb_json_bool(r->doc, flag.key, out, r->name, err) : NYB_OK;
}

static bool is_when(const nyb_arch *arch, const json_t *doc)
{
    for (size_t i = 0; i < 2 && arch->when[i].key; i++) {
        const json_t *const value = json_object_get(doc, arch->when[i].key);
        json_int_t is = arch->when[i].otherwise;
        if (json_is_boolean(value))
            is = json_is_true(value);
        else if (json_is_integer(value))
            is = json_integer_value(value);
        if (is != arch->when[i].value)
            return false;
    }
    return true;
}

static nyb_status read_arch(const nyb_config_reader *r, nyb_err *err)
{
    const char *type = NULL;
    const nyb_status status = nyb_json_text(r->doc, "model_type", &type, r->name, err);
    if (status != NYB_OK)
        return status;
    if (!type)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'model_type' is missing", r->name);

    for (size_t i = 0; nyb_arch_at(i); i++) {
        const nyb_arch *const arch = nyb_arch_at(i);
        if (strcmp(arch->model_type, type) == 0 && is_when(arch, r->doc)) {
            r->out->arch = arch;
            return NYB_OK;
        }
    }
    nyb_misses_add(r->misses, "model type '%.80s' (nybble help families lists those that are)",
                   type);
    return NYB_OK;
}

// The first of the spellings that is there, or the first of all.
static const char *spelling(const nyb_config_reader *r, const char *const *keys)
{
    for (size_t i = 0; keys[i]; i++) {
        if (nyb_config_given(r, keys[i]))
            return keys[i];
    }
    return keys[0];
}

static nyb_status read_extents(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    enum { SPELLINGS = 5 };
    const struct {
        size_t *to;
        const char *keys[SPELLINGS];
        size_t absent, high;
    } sizes[] = {
        {&c->hidden, {"hidden_size", "n_embd", "dim", "n_embed"}, 0, NYB_MOST_WIDTH},
        {&c->blocks, {"num_hidden_layers", "n_layer", "n_layers"}, 0, NYB_BLOCKS_MAX},
        {&c->heads, {"num_attention_heads", "n_head", "n_heads"}, 0, NYB_MOST_HEADS},
        {&c->vocab, {"vocab_size"}, 0, INT32_MAX},
        {&c->positions, {"max_position_embeddings", "n_positions"}, 2048, NYB_MOST_POSITIONS},
    };
    static const char *const widths[] = {"intermediate_size", "n_inner",    "ffn_hidden_size",
                                         "ffn_dim",           "hidden_dim", NULL};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const nyb_status status = nyb_config_size(r, sizes[i].to, spelling(r, sizes[i].keys),
                                                  sizes[i].absent, sizes[i].high, err);
        if (status != NYB_OK)
            return status;
    }
    // GPT-2 and Falcon leave out what is four times the width.
    const bool four = !c->arch->gate && c->arch->qkv && c->arch->norm == NYB_NORM_LAYER;
    nyb_status status = nyb_config_size(r, &c->intermediate, spelling(r, widths),
                                        four ? 4 * c->hidden : 0, NYB_MOST_WIDTH, err);
    c->embed_dim = c->hidden;
    if (status == NYB_OK && c->arch->project_in && nyb_config_given(r, "word_embed_proj_dim"))
        status = nyb_config_size(r, &c->embed_dim, "word_embed_proj_dim", 0, NYB_MOST_WIDTH, err);
    if (status == NYB_OK && c->arch->token_type)
        status = nyb_config_size(r, &c->token_types, "type_vocab_size", 2, NYB_MOST_WIDTH, err);
    return status;
}

static nyb_status read_switches(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const nyb_arch *const arch = c->arch;
    const struct {
        bool *to;
        nyb_flag flag;
    } switches[] = {
        {&c->tied, arch->tied},         {&c->pre_norm, arch->pre_norm},
        {&c->parallel, arch->parallel}, {&c->qkv_bias, arch->qkv_bias},
        {&c->o_bias, arch->o_bias},     {&c->mlp_bias, arch->mlp_bias},
    };
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        const nyb_status status = nyb_config_flag(r, switches[i].to, switches[i].flag, err);
        if (status != NYB_OK)
            return status;
    }
    // A switch that the family does not have must not ask for anything.
    static const char *const keys[] = {"attention_bias", "mlp_bias"};
    for (size_t i = 0; i < 2; i++) {
        const char *const own[] = {arch->qkv_bias.key, arch->mlp_bias.key};
        bool asked = false;
        const nyb_status status = nyb_json_bool(r->doc, keys[i], &asked, r->name, err);
        if (status != NYB_OK)
            return status;
        if (asked && (!own[i] || strcmp(own[i], keys[i]) != 0) &&
            !(i ? arch->mlp_bias.otherwise : arch->qkv_bias.otherwise))
            nyb_misses_add(r->misses, "'%s' (biases)", keys[i]);
    }
    bool affine = true, removed = false;
    nyb_status status =
        nyb_json_bool(r->doc, "layer_norm_elementwise_affine", &affine, r->name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(r->doc, "_remove_final_layer_norm", &removed, r->name, err);
    c->no_norm_gains = !affine;
    c->no_final_norm = !arch->final_norm || !c->pre_norm || removed;
    return status;
}

static nyb_status read_activation(const nyb_config_reader *r, nyb_err *err)
{
    static const char *const keys[] = {"hidden_activation", "hidden_act", "activation_function",
                                       "activation", NULL};
    const char *const key = spelling(r, keys);
    const char *name = r->out->arch ? r->out->arch->activation : "linear";
    const nyb_status status = nyb_json_text(r->doc, key, &name, r->name, err);
    if (status == NYB_OK && !nyb_activation_find(&r->out->activation, name))
        nyb_misses_add(r->misses, "activation '%.80s'", name);
    return status;
}

static nyb_status read_norm(const nyb_config_reader *r, nyb_err *err)
{
    static const char *const keys[] = {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon",
                                       NULL};
    const nyb_arch *const arch = r->out->arch;
    const char *const key = spelling(r, keys);
    double eps = arch->eps > 0.0 ? arch->eps : arch->norm == NYB_NORM_LAYER ? 1e-5 : 1e-6;
    const nyb_status status = nyb_json_real(r->doc, key, &eps, r->name, err);
    if (status != NYB_OK)
        return status;
    if (!(eps >= 0.0 && eps <= 1.0))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is %g, want 0 to 1", r->name, key, eps);
    r->out->norm_eps = eps;
    return NYB_OK;
}

static nyb_status read_labels(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const json_t *const labels = json_object_get(r->doc, "id2label");
    const char *const class =
        json_string_value(json_array_get(json_object_get(r->doc, "architectures"), 0));
    if (!c->arch->classifier.out)
        return NYB_OK;
    c->bare = class && !strstr(class, "ForSequenceClassification");
    if (c->bare)
        return NYB_OK;
    c->labels = json_is_object(labels) ? json_object_size(labels) : 0;
    if (c->labels)
        return NYB_OK;
    return nyb_config_size(r, &c->labels, "num_labels", 2, NYB_MOST_WIDTH, err);
}

static nyb_status read_dtype(const nyb_config_reader *r, nyb_err *err)
{
    const json_t *const doc = r->doc;
    const char *const name = r->name;
    nyb_model_config *const out = r->out;
    static const struct {
        const char *text;
        nyb_dtype dtype;
    } types[] = {{"float32", NYB_F32}, {"float16", NYB_F16}, {"bfloat16", NYB_BF16}};
    const char *text = "float32";
    nyb_status status = nyb_json_text(doc, "torch_dtype", &text, name, err);
    if (status == NYB_OK)
        status = nyb_json_text(doc, "dtype", &text, name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(text, types[i].text) == 0) {
            out->dtype = types[i].dtype;
            return NYB_OK;
        }
    }
    nyb_misses_add(r->misses, "dtype '%.40s' (float32, float16 and bfloat16 are)", text);
    return NYB_OK;
}

// One token id. -1 says that there is none, as some configurations have it.
static nyb_status read_id(size_t *out, bool *there, const json_t *value, const char *key,
                          const char *name, nyb_err *err)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < -1 || id > INT32_MAX)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' holds no token id", name, key);
    *there = id >= 0;
    if (*there)
        *out = (size_t) id;
    return NYB_OK;
}

nyb_status nyb_eos_read(nyb_model_config *out, const json_t *value, const char *name, nyb_err *err)
{
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count > NYB_EOS_MAX)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: 'eos_token_id' has %zu ids, at most %d are "
                        "supported",
                        name, count, NYB_EOS_MAX);
    out->eos_count = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *const item = json_is_array(value) ? json_array_get(value, i) : value;
        bool there = false;
        const nyb_status status =
            read_id(&out->eos[out->eos_count], &there, item, "eos_token_id", name, err);
        if (status != NYB_OK)
            return status;
        out->eos_count += there;
    }
    return NYB_OK;
}

static nyb_status read_ids(const nyb_config_reader *r, nyb_err *err)
{
    const json_t *const doc = r->doc;
    const char *const name = r->name;
    nyb_model_config *const out = r->out;
    // What the families have when config.json does not mention them; null means none.
    const json_t *const bos = json_object_get(doc, "bos_token_id");
    const json_t *const eos = json_object_get(doc, "eos_token_id");
    nyb_status status = NYB_OK;
    out->has_bos = !bos;
    out->bos = 1;
    out->eos_count = !eos;
    out->eos[0] = 2;
    // Llama 3 lists its ids in some files even for bos; the first one counts.
    const json_t *const first = json_is_array(bos) ? json_array_get(bos, 0) : bos;
    if (first && !json_is_null(first))
        status = read_id(&out->bos, &out->has_bos, first, "bos_token_id", name, err);
    if (status == NYB_OK && eos && !json_is_null(eos))
        status = nyb_eos_read(out, eos, name, err);
    const json_t *const pad = json_object_get(doc, "pad_token_id");
    out->pad = 1;
    if (status == NYB_OK && pad && !json_is_null(pad))
        status = read_id(&out->pad, &out->has_pad, pad, "pad_token_id", name, err);
    return status;
}

// What can be said of a family that is not known.
static nyb_status look_at_stranger(const nyb_config_reader *r, nyb_err *err)
{
    nyb_status status = nyb_config_features(r, err);
    if (status == NYB_OK)
        status = read_activation(r, err);
    if (status == NYB_OK)
        status = nyb_config_rope_words(r, err);
    return status == NYB_OK ? read_dtype(r, err) : status;
}

static nyb_status look(const nyb_config_reader *r, nyb_err *err)
{
    static nyb_config_part *const readers[] = {
        nyb_config_features, read_activation,      read_dtype,        read_extents,
        read_switches,       nyb_config_attention, nyb_config_blocks, nyb_config_experts,
        read_norm,           nyb_config_ropes,     read_labels,       read_ids,
    };
    nyb_status status = read_arch(r, err);
    if (status != NYB_OK)
        return status;
    if (!r->out->arch)
        return look_at_stranger(r, err);
    for (size_t i = 0; status == NYB_OK && i < sizeof(readers) / sizeof(readers[0]); i++)
        status = readers[i](r, err);
    return status;
}

nyb_status nyb_model_config_look(nyb_model_config *out, nyb_misses *misses, const json_t *doc,
                                 const char *name, nyb_err *err)
{
    nyb_err local = {0};
    json_t *inside = NULL;
    *out = (nyb_model_config){0};
    if (!json_is_object(doc))
        return nyb_fail(err, NYB_E_FORMAT, "%s: not a JSON object", name);
    nyb_status status = nyb_wrapper_inside(&inside, doc, name, &local);
    const nyb_config_reader r = {.out = out, .doc = inside, .name = name, .misses = misses};
    if (status == NYB_OK)
        status = look(&r, &local);
    out->wrapped = inside != doc;
    json_decref(inside);
    // What is wrong beside what is missing is told with it.
    if (misses->count > 0 && (status == NYB_E_FORMAT || status == NYB_E_UNSUPPORTED))
        nyb_misses_add_line(misses, &local, name);
    else if (status != NYB_OK)
        return nyb_fail(err, status, "%s", local.text);
    return NYB_OK;
}

nyb_status nyb_model_config_read(nyb_model_config *out, const json_t *doc, const char *name,
                                 nyb_err *err)
{
    nyb_misses misses = {0};
    const nyb_status status = nyb_model_config_look(out, &misses, doc, name, err);
    return status == NYB_OK ? nyb_misses_fail(&misses, name, err) : status;
}
