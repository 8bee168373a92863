#include "formats/keras_hub.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/json.h"
#include "formats/safetensors.h"

// An array of a preset by its place, and a tensor by its name. Axes are letters: d hidden, h heads, k
// heads of keys and values, v values of a head, f intermediate, w vocabulary, p positions. Of turned
// ones a colon stands between inputs and outputs.
typedef struct rule {
    const char *place;
    const char *name;
    const char *axes;
    unsigned index;
    nyb_hub_form form;
    unsigned third;
    bool untied; // of models alone whose head is not the embedding
} rule;

struct nyb_hub_family {
    const char *classes[3]; // the first is for new presets
    const char *module;
    const char *model_type;
    const char *block_place; // of the first; "_1", "_2", ... follow
    const char *block_name;  // with the number behind it
    const char *heads, *kv_heads;
    const rule *block, *outer; // end with a place of NULL
};

static const rule llama_block[] = {
    {"_self_attention_layernorm", "input_layernorm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"_self_attention_layer/_query_dense", "self_attn.q_proj.weight", "d:hv", 0, NYB_HUB_TURNED, 0,
     false},
    {"_self_attention_layer/_key_dense", "self_attn.k_proj.weight", "d:kv", 0, NYB_HUB_TURNED, 0,
     false},
    {"_self_attention_layer/_value_dense", "self_attn.v_proj.weight", "d:kv", 0, NYB_HUB_TURNED, 0,
     false},
    {"_self_attention_layer/_output_dense", "self_attn.o_proj.weight", "hv:d", 0, NYB_HUB_TURNED, 0,
     false},
    {"_feedforward_layernorm", "post_attention_layernorm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"_feedforward_gate_dense", "mlp.gate_proj.weight", "d:f", 0, NYB_HUB_TURNED, 0, false},
    {"_feedforward_intermediate_dense", "mlp.up_proj.weight", "d:f", 0, NYB_HUB_TURNED, 0, false},
    {"_feedforward_output_dense", "mlp.down_proj.weight", "f:d", 0, NYB_HUB_TURNED, 0, false},
    {0},
};

static const rule llama_outer[] = {
    {"layers/reversible_embedding", "model.embed_tokens.weight", "wd", 0, NYB_HUB_SAME, 0, false},
    {"layers/reversible_embedding", "lm_head.weight", "d:w", 1, NYB_HUB_TURNED, 0, true},
    {"layers/llama_layer_norm", "model.norm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {0},
};

static const rule gemma_block[] = {
    {"pre_attention_norm", "input_layernorm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"attention/query_dense", "self_attn.q_proj.weight", "hdv", 0, NYB_HUB_HEADS, 0, false},
    {"attention/key_dense", "self_attn.k_proj.weight", "kdv", 0, NYB_HUB_HEADS, 0, false},
    {"attention/value_dense", "self_attn.v_proj.weight", "kdv", 0, NYB_HUB_HEADS, 0, false},
    {"attention/query_norm", "self_attn.q_norm.weight", "v", 0, NYB_HUB_SAME, 0, false},
    {"attention/key_norm", "self_attn.k_norm.weight", "v", 0, NYB_HUB_SAME, 0, false},
    {"attention/output_dense", "self_attn.o_proj.weight", "hv:d", 0, NYB_HUB_TURNED, 0, false},
    {"post_attention_norm", "post_attention_layernorm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"pre_ffw_norm", "pre_feedforward_layernorm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"gating_ffw", "mlp.gate_proj.weight", "d:f", 0, NYB_HUB_TURNED, 0, false},
    {"gating_ffw_2", "mlp.up_proj.weight", "d:f", 0, NYB_HUB_TURNED, 0, false},
    {"ffw_linear", "mlp.down_proj.weight", "f:d", 0, NYB_HUB_TURNED, 0, false},
    {"post_ffw_norm", "post_feedforward_layernorm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {0},
};

static const rule gemma_outer[] = {
    {"layers/reversible_embedding", "model.embed_tokens.weight", "wd", 0, NYB_HUB_SAME, 0, false},
    {"layers/rms_normalization", "model.norm.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {0},
};

// A folder's matrices are [inputs, outputs] too.
static const rule gpt2_block[] = {
    {"_self_attention_layer_norm", "ln_1.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"_self_attention_layer_norm", "ln_1.bias", "d", 1, NYB_HUB_SAME, 0, false},
    {"_self_attention_layer/query_dense", "attn.c_attn.weight", "dhv", 0, NYB_HUB_THIRD, 0, false},
    {"_self_attention_layer/key_dense", "attn.c_attn.weight", "dhv", 0, NYB_HUB_THIRD, 1, false},
    {"_self_attention_layer/value_dense", "attn.c_attn.weight", "dhv", 0, NYB_HUB_THIRD, 2, false},
    {"_self_attention_layer/query_dense", "attn.c_attn.bias", "hv", 1, NYB_HUB_THIRD, 0, false},
    {"_self_attention_layer/key_dense", "attn.c_attn.bias", "hv", 1, NYB_HUB_THIRD, 1, false},
    {"_self_attention_layer/value_dense", "attn.c_attn.bias", "hv", 1, NYB_HUB_THIRD, 2, false},
    {"_self_attention_layer/output_dense", "attn.c_proj.weight", "hv:d", 0, NYB_HUB_SAME, 0, false},
    {"_self_attention_layer/output_dense", "attn.c_proj.bias", "d", 1, NYB_HUB_SAME, 0, false},
    {"_feedforward_layer_norm", "ln_2.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"_feedforward_layer_norm", "ln_2.bias", "d", 1, NYB_HUB_SAME, 0, false},
    {"_feedforward_intermediate_dense", "mlp.c_fc.weight", "d:f", 0, NYB_HUB_SAME, 0, false},
    {"_feedforward_intermediate_dense", "mlp.c_fc.bias", "f", 1, NYB_HUB_SAME, 0, false},
    {"_feedforward_output_dense", "mlp.c_proj.weight", "f:d", 0, NYB_HUB_SAME, 0, false},
    {"_feedforward_output_dense", "mlp.c_proj.bias", "d", 1, NYB_HUB_SAME, 0, false},
    {0},
};

static const rule gpt2_outer[] = {
    {"layers/reversible_embedding", "transformer.wte.weight", "wd", 0, NYB_HUB_SAME, 0, false},
    {"layers/position_embedding", "transformer.wpe.weight", "pd", 0, NYB_HUB_SAME, 0, false},
    {"layers/layer_normalization", "transformer.ln_f.weight", "d", 0, NYB_HUB_SAME, 0, false},
    {"layers/layer_normalization", "transformer.ln_f.bias", "d", 1, NYB_HUB_SAME, 0, false},
    {0},
};

static const nyb_hub_family families[] = {
    {.classes = {"Llama3Backbone", "LlamaBackbone"},
     .module = "keras_hub.src.models.llama3.llama3_backbone",
     .model_type = "llama",
     .block_place = "layers/llama_transformer_decoder",
     .block_name = "model.layers.",
     .heads = "num_query_heads",
     .kv_heads = "num_key_value_heads",
     .block = llama_block,
     .outer = llama_outer},
    {.classes = {"Gemma3Backbone"},
     .module = "keras_hub.src.models.gemma3.gemma3_backbone",
     .model_type = "gemma3_text",
     .block_place = "layers/gemma3_decoder_block",
     .block_name = "model.layers.",
     .heads = "num_query_heads",
     .kv_heads = "num_key_value_heads",
     .block = gemma_block,
     .outer = gemma_outer},
    {.classes = {"GPT2Backbone"},
     .module = "keras_hub.src.models.gpt2.gpt2_backbone",
     .model_type = "gpt2",
     .block_place = "layers/transformer_decoder",
     .block_name = "transformer.h.",
     .heads = "num_heads",
     .kv_heads = "num_heads",
     .block = gpt2_block,
     .outer = gpt2_outer},
};

enum { FAMILIES = sizeof(families) / sizeof(families[0]), MOST_BLOCKS = 1000 };

const nyb_hub_family *nyb_hub_family_of_class(const char *class_name)
{
    for (size_t i = 0; i < FAMILIES; i++) {
        for (size_t c = 0; c < 3 && families[i].classes[c]; c++) {
            if (strcmp(families[i].classes[c], class_name) == 0)
                return &families[i];
        }
    }
    return NULL;
}

const nyb_hub_family *nyb_hub_family_of_model(const char *model_type)
{
    for (size_t i = 0; i < FAMILIES; i++) {
        if (strcmp(families[i].model_type, model_type) == 0)
            return &families[i];
    }
    return NULL;
}

const char *nyb_hub_class(const nyb_hub_family *family)
{
    return family->classes[0];
}

const char *nyb_hub_module(const nyb_hub_family *family)
{
    return family->module;
}

const char *nyb_hub_model_type(const nyb_hub_family *family)
{
    return family->model_type;
}

// ---- Parts ----------------------------------------------------------------------------------

// The sizes that letters stand for.
typedef struct sizes {
    size_t d, h, k, v, f, w, p, blocks;
} sizes;

static nyb_status read_size(const json_t *config, const char *key, size_t *out, const char *name,
                            nyb_err *err)
{
    const nyb_status status = nyb_json_size(config, key, out, name, err);
    if (status != NYB_OK)
        return status;
    return *out > 0 ? NYB_OK : nyb_fail(err, NYB_E_FORMAT, "%s: has no '%s'", name, key);
}

static nyb_status read_sizes(sizes *s, const nyb_hub_family *family, const json_t *config,
                             const char *name, nyb_err *err)
{
    nyb_status status = read_size(config, "hidden_dim", &s->d, name, err);
    if (status == NYB_OK)
        status = read_size(config, family->heads, &s->h, name, err);
    if (status == NYB_OK)
        status = read_size(config, family->kv_heads, &s->k, name, err);
    if (status == NYB_OK)
        status = read_size(config, "intermediate_dim", &s->f, name, err);
    if (status == NYB_OK)
        status = read_size(config, "vocabulary_size", &s->w, name, err);
    if (status == NYB_OK)
        status = read_size(config, "num_layers", &s->blocks, name, err);
    if (status == NYB_OK)
        status = nyb_json_size(config, "head_dim", &s->v, name, err);
    if (status == NYB_OK)
        status = nyb_json_size(config, "max_sequence_length", &s->p, name, err);
    if (status == NYB_OK && s->blocks > MOST_BLOCKS)
        status = nyb_fail(err, NYB_E_UNSUPPORTED, "%s: %zu layers, more than %d", name, s->blocks,
                          MOST_BLOCKS);
    if (status == NYB_OK && s->v == 0 && s->d % s->h != 0)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: hidden_dim %zu is no multiple of %zu heads", name,
                          s->d, s->h);
    if (s->v == 0 && s->h > 0)
        s->v = s->d / s->h;
    return status;
}

static size_t size_of(const sizes *s, char letter)
{
    switch (letter) {
    case 'd':
        return s->d;
    case 'h':
        return s->h;
    case 'k':
        return s->k;
    case 'v':
        return s->v;
    case 'f':
        return s->f;
    case 'w':
        return s->w;
    default:
        return s->p;
    }
}

// The shapes on both sides. False when a product is too large.
static bool set_shapes(nyb_hub_part *part, const rule *r, const sizes *s)
{
    size_t before = 1, behind = 1;
    bool inputs = strchr(r->axes, ':') != NULL, fits = true;
    for (const char *c = r->axes; *c && fits; c++) {
        if (*c == ':') {
            inputs = false;
            continue;
        }
        const size_t n = size_of(s, *c);
        part->shape[part->rank++] = n;
        fits = inputs ? nyb_mul_size(before, n, &before) : nyb_mul_size(behind, n, &behind);
    }
    const bool matrix = strchr(r->axes, ':') != NULL;
    part->inputs = part->form == NYB_HUB_HEADS ? part->shape[1] : before;
    part->folder_rank = part->rank < 2 ? 1 : 2;
    part->folder_shape[0] = part->shape[0];
    part->folder_shape[1] = part->shape[1];
    if (part->form == NYB_HUB_THIRD) {
        const bool bias = part->rank == 2; // [h, v], and [d, h, v]
        size_t columns = 0;
        fits = fits && nyb_mul_size(3, s->h * s->v, &columns); // whose product is in `behind`
        part->folder_rank = bias ? 1 : 2;
        part->folder_shape[0] = bias ? columns : s->d;
        part->folder_shape[1] = columns;
    } else if (part->form == NYB_HUB_HEADS) {
        part->folder_shape[0] = part->shape[0] * part->shape[2];
        part->folder_shape[1] = part->shape[1];
    } else if (matrix) {
        part->folder_shape[0] = part->form == NYB_HUB_TURNED ? behind : before;
        part->folder_shape[1] = part->form == NYB_HUB_TURNED ? before : behind;
    }
    return fits;
}

static nyb_status add_part(nyb_hub_part *part, nyb_arena *arena, const rule *r, const sizes *s,
                           const char *place, const char *name, nyb_err *err)
{
    *part = (nyb_hub_part){.form = r->form, .third = r->third};
    part->path = nyb_arena_format(arena, "%s%s/vars/%u", place, r->place, r->index);
    part->name = nyb_arena_format(arena, "%s%s", name, r->name);
    if (!part->path || !part->name)
        return nyb_no_memory(err, r->name, 1, 1);
    if (!set_shapes(part, r, s))
        return nyb_fail(err, NYB_E_FORMAT, "the size of '%s' cannot be counted", part->path);
    return NYB_OK;
}

static size_t rule_count(const rule *rules)
{
    size_t n = 0;
    while (rules[n].place)
        n++;
    return n;
}

nyb_status nyb_hub_parts(nyb_hub_part **parts, size_t *count, nyb_arena *arena,
                         const nyb_hub_family *family, const json_t *config, bool tied,
                         const char *name, nyb_err *err)
{
    sizes s = {0};
    nyb_status status = read_sizes(&s, family, config, name, err);
    const size_t most = rule_count(family->outer) + s.blocks * rule_count(family->block);
    *count = 0;
    *parts = status == NYB_OK ? nyb_arena_alloc(arena, most, sizeof(**parts)) : NULL;
    if (status != NYB_OK || !*parts)
        return status != NYB_OK ? status : nyb_no_memory(err, "parts", most, sizeof(**parts));
    for (const rule *r = family->outer; r->place && status == NYB_OK; r++) {
        if (!r->untied || !tied)
            status = add_part(&(*parts)[(*count)++], arena, r, &s, "", "", err);
    }
    for (size_t b = 0; b < s.blocks && status == NYB_OK; b++) {
        const char *const place = b ? nyb_arena_format(arena, "%s_%zu/", family->block_place, b)
                                    : nyb_arena_format(arena, "%s/", family->block_place);
        const char *const block = nyb_arena_format(arena, "%s%zu.", family->block_name, b);
        if (!place || !block)
            return nyb_no_memory(err, "names", 1, 1);
        for (const rule *r = family->block; r->place && status == NYB_OK; r++)
            status = add_part(&(*parts)[(*count)++], arena, r, &s, place, block, err);
    }
    return status;
}

const nyb_hub_family *nyb_hub_family_of(const nyb_keras_file *file, bool *tied)
{
    const json_t *const config = nyb_keras_config(file);
    const char *const class_name = json_string_value(json_object_get(config, "class_name"));
    const nyb_hub_family *const family = class_name ? nyb_hub_family_of_class(class_name) : NULL;
    *tied = family && !nyb_keras_find(file, "layers/reversible_embedding/vars/1");
    return family;
}

// ---- Elements -------------------------------------------------------------------------------

// An order of elements as three axes: out[i][j][k] = in[i * s0 + j * s1 + k * s2].
typedef struct order {
    size_t n[3], step[3];
} order;

static void reorder(unsigned char *out, const unsigned char *in, const order *o, size_t size)
{
    for (size_t i = 0; i < o->n[0]; i++) {
        for (size_t j = 0; j < o->n[1]; j++) {
            const unsigned char *from = in + (i * o->step[0] + j * o->step[1]) * size;
            for (size_t k = 0; k < o->n[2]; k++, out += size, from += o->step[2] * size)
                memcpy(out, from, size);
        }
    }
}

// From the preset's order to the folder's, or back.
static order order_of(const nyb_hub_part *p, bool to_folder)
{
    if (p->form == NYB_HUB_HEADS) { // [h, in, v] and [h, v, in]
        const size_t h = p->shape[0], in = p->shape[1], v = p->shape[2];
        return to_folder ? (order){{h, v, in}, {in * v, 1, v}}
                         : (order){{h, in, v}, {in * v, 1, in}};
    }
    const size_t out = p->folder_shape[0], in = p->folder_shape[1]; // [in, out] and [out, in]
    return to_folder ? (order){{1, out, in}, {0, 1, out}} : (order){{1, in, out}, {0, 1, in}};
}

// Rows of the folder's tensor, and columns of one third.
static void third_size(const nyb_hub_part *p, size_t *rows, size_t *columns)
{
    *rows = p->folder_rank == 2 ? p->folder_shape[0] : 1;
    *columns = (p->folder_rank == 2 ? p->folder_shape[1] : p->folder_shape[0]) / 3;
}

static size_t count_of(const nyb_hub_part *p)
{
    size_t n = 1;
    for (unsigned i = 0; i < p->rank; i++)
        n *= p->shape[i];
    return n;
}

nyb_status nyb_hub_make(void **out, const nyb_hub_part *part, const nyb_tensor *tensor,
                        nyb_err *err)
{
    const size_t size = nyb_dtype_bytes(tensor->dtype), count = count_of(part);
    unsigned char *const to = nyb_alloc_raw(count, size);
    const unsigned char *const from = tensor->at;
    *out = to;
    if (!to)
        return nyb_no_memory(err, part->path, count, size);
    if (part->form == NYB_HUB_THIRD) {
        size_t rows, columns;
        third_size(part, &rows, &columns);
        for (size_t r = 0; r < rows; r++)
            memcpy(to + r * columns * size, from + (3 * r + part->third) * columns * size,
                   columns * size);
    } else if (part->form == NYB_HUB_SAME) {
        memcpy(to, from, count * size);
    } else {
        const order o = order_of(part, false);
        reorder(to, from, &o, size);
    }
    return NYB_OK;
}

// ---- A preset as a folder -------------------------------------------------------------------

// Copies lie in a file without a name: those who are done with a tensor drop its pages from memory,
// as of any mapped one, and find them there again.
typedef struct filling {
    nyb_keras_file *file;
    unsigned char *room; // what is left of the copies
} filling;

static size_t rounded_up(size_t bytes)
{
    return (bytes + NYB_ALIGN - 1) / NYB_ALIGN * NYB_ALIGN;
}

static nyb_status map_copies(nyb_map *out, size_t bytes, nyb_err *err)
{
    const char *const folder = nyb_file_temporary();
    *out = (nyb_map){0};
    if (bytes == 0)
        return NYB_OK;
    const int fd = nyb_file_nameless(folder);
    int fault = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t) bytes);
    void *const at =
        fault ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fault = fault ? fault : at == MAP_FAILED ? errno : 0;
    if (fd >= 0)
        (void) close(fd);
    if (fault)
        return nyb_fail(
            err, NYB_E_IO,
            "cannot put %zu MiB of a preset's matrices, turned, into %s: %s; set TMPDIR "
            "to a folder with room",
            bytes >> 20, folder, strerror(fault));
    *out = (nyb_map){.at = at, .bytes = bytes};
    return NYB_OK;
}

// Bytes of all tensors whose elements lie in another order.
static size_t copied_bytes(const nyb_keras_file *file, const nyb_hub_part *parts, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        const nyb_hdf5_item *const item = nyb_keras_find(file, parts[i].path);
        if (item && !item->is_group && parts[i].form != NYB_HUB_SAME) // thirds: each once
            bytes += rounded_up(item->tensor.bytes);
    }
    return bytes + NYB_ALIGN * count;
}

static nyb_status read_part(nyb_tensor *out, nyb_keras_file *file, const nyb_hub_part *part,
                            nyb_err *err)
{
    const nyb_hdf5_item *const item = nyb_keras_find(file, part->path);
    if (!item || item->is_group)
        return nyb_fail(err, NYB_E_FORMAT, "%s: has no array '%s'", nyb_keras_path(file),
                        part->path);
    bool fits = item->tensor.rank == part->rank;
    for (unsigned i = 0; fits && i < part->rank; i++)
        fits = item->tensor.shape[i] == part->shape[i];
    if (!fits)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: array '%s' has another shape than config.json makes it",
                        nyb_keras_path(file), part->path);
    return nyb_keras_read(file, part->path, out, err);
}

static nyb_status add_tensor(nyb_tensor *out, filling *f, const nyb_hub_part *part, nyb_err *err)
{
    nyb_keras_file *const file = f->file;
    nyb_tensor in;
    nyb_status status = read_part(&in, file, part, err);
    if (status == NYB_OK && part->third == 0)
        status = nyb_tensor_describe(out, part->name, in.dtype, part->folder_rank,
                                     part->folder_shape, err);
    if (status != NYB_OK)
        return status;
    const size_t size = nyb_dtype_bytes(in.dtype);
    if (part->form == NYB_HUB_SAME) {
        out->at = in.at;
        return NYB_OK;
    }
    if (part->third == 0) {
        out->at = f->room;
        f->room += rounded_up(out->bytes);
    }
    unsigned char *const to = (unsigned char *) (uintptr_t) out->at; // of the copies
    if (part->form == NYB_HUB_THIRD) {
        size_t rows, columns;
        third_size(part, &rows, &columns);
        if (in.dtype != out->dtype)
            return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: array '%s' is %s, the one before it %s",
                            nyb_keras_path(file), part->path, nyb_dtype_name(in.dtype),
                            nyb_dtype_name(out->dtype));
        for (size_t r = 0; r < rows; r++)
            memcpy(to + (3 * r + part->third) * columns * size,
                   (const unsigned char *) in.at + r * columns * size, columns * size);
        return NYB_OK;
    }
    const order o = order_of(part, true);
    reorder(to, in.at, &o, size);
    return NYB_OK;
}

static bool is_known(const nyb_hub_part *parts, size_t count, const char *path)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(parts[i].path, path) == 0)
            return true;
    }
    return false;
}

static nyb_status check_leftovers(nyb_keras_file *file, const nyb_hub_part *parts, size_t count,
                                  nyb_err *err)
{
    for (size_t i = 0; i < nyb_keras_count(file); i++) {
        const nyb_hdf5_item *const item = nyb_keras_item_at(file, i);
        if (!item->is_group && !is_known(parts, count, item->path))
            return nyb_fail(err, NYB_E_FORMAT,
                            "%s: array '%s' is no part of the model that config.json describes",
                            nyb_keras_path(file), item->path);
    }
    return NYB_OK;
}

nyb_status nyb_hub_as_folder(nyb_keras_file *file, nyb_arena *arena, nyb_map *copies,
                             nyb_tensor **tensors, size_t *count, nyb_err *err)
{
    bool tied = false;
    const nyb_hub_family *const family = nyb_hub_family_of(file, &tied);
    const json_t *const config = json_object_get(nyb_keras_config(file), "config");
    nyb_hub_part *parts = NULL;
    size_t part_count = 0;
    *count = 0;
    *copies = (nyb_map){0};
    if (!family)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a Keras model, but no KerasHub preset of Llama, Gemma 3 or GPT-2",
                        nyb_keras_path(file));
    nyb_status status =
        nyb_hub_parts(&parts, &part_count, arena, family, config, tied, nyb_keras_path(file), err);
    if (status == NYB_OK)
        status = check_leftovers(file, parts, part_count, err);
    if (status == NYB_OK) {
        *tensors = nyb_arena_alloc(arena, part_count, sizeof(**tensors));
        status = *tensors ? map_copies(copies, copied_bytes(file, parts, part_count), err)
                          : nyb_no_memory(err, "tensors", part_count, sizeof(**tensors));
    }
    filling f = {.file = file, .room = (unsigned char *) (uintptr_t) copies->at};
    for (size_t i = 0; i < part_count && status == NYB_OK; i++) {
        // Thirds lie one behind the other in the list, apart from each other's biases.
        *count += parts[i].third == 0;
        status = add_tensor(&(*tensors)[*count - 1], &f, &parts[i], err);
    }
    return status;
}
