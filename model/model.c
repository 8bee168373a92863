#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/memory.h"
#include "model/binding.h"
#include "model/gguf_config.h"

struct nyb_model {
    nyb_arena arena; // everything that has no owner of its own
    const char *folder;
    nyb_model_config config;
    nyb_checkpoint *checkpoint;
    nyb_quantization *quantization;
    size_t linear_count;      // of one block
    nyb_linear *linears;      // [blocks, linear_count]
    const nyb_tensor **norms; // [blocks, NYB_STAGES]
    const nyb_tensor *embedding, *final_norm;
    nyb_linear head;
    nyb_qweight head_codes;
};

static const char *shape_text(nyb_arena *arena, unsigned rank, const size_t *shape)
{
    char *text = nyb_arena_text(arena, "[", 1);
    for (unsigned i = 0; text && i < rank; i++)
        text = nyb_arena_format(arena, "%s%s%zu", text, i ? ", " : "", shape[i]);
    return text ? text : "[";
}

// Finds a tensor and checks that it is of a float type and of this shape; cols 0: a vector.
static nyb_status bind_tensor(const nyb_tensor **out, nyb_model *m, const char *name, size_t rows,
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
    if (!nyb_dtype_is_float(t->dtype) && !nyb_dtype_is_block(t->dtype))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' is %s, supported are F32, F16 and BF16", file, name,
                        nyb_dtype_name(t->dtype));
    return NYB_OK;
}

// A tensor inside block `block`: "model.layers.3." + name + suffix.
static const char *name_in_block(nyb_model *m, size_t block, const char *name, const char *suffix)
{
    return nyb_arena_format(&m->arena, "%s%zu.%s%s", m->config.arch->block, block, name, suffix);
}

// Fills in where the weight and the bias of out->module are.
static nyb_status bind_linear(nyb_linear *out, nyb_model *m, bool biased, nyb_err *err)
{
    nyb_quantized answer;
    nyb_status status =
        nyb_quantization_find(&answer, m->quantization, m->checkpoint, out->module, err);
    if (status != NYB_OK)
        return status;
    out->quantized = answer.layout != NULL;
    if (!out->quantized)
        status = bind_tensor(&out->weight, m, nyb_arena_format(&m->arena, "%s.weight", out->module),
                             out->rows, out->cols, err);
    if (status != NYB_OK)
        return status;

    // Writers of quantised layers may add a bias that config.json knows nothing of.
    const char *const name = nyb_arena_format(&m->arena, "%s.bias", out->module);
    const bool there = name && nyb_checkpoint_find(m->checkpoint, name);
    if (there && !biased && !out->quantized)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: tensor '%s' is there, but config.json says that there is no bias",
                        m->folder, name);
    if (there || biased)
        status = bind_tensor(&out->bias, m, name, out->rows, 0, err);
    return status;
}

static bool is_biased(const nyb_model_config *config, nyb_bias_switch bias)
{
    return (bias == NYB_BIAS_ATTENTION && config->attention_bias) ||
           (bias == NYB_BIAS_MLP && config->mlp_bias);
}

static nyb_status bind_stage(nyb_model *m, size_t block, size_t stage, nyb_err *err)
{
    const nyb_arch_stage *const part = &m->config.arch->stages[stage];
    const nyb_stage at = nyb_stage_at(m, block, stage);
    nyb_status status = NYB_OK;
    if (part->norm)
        status = bind_tensor(&m->norms[block * NYB_STAGES + stage], m,
                             name_in_block(m, block, part->norm, ".weight"), at.width, 0, err);
    for (size_t i = 0; status == NYB_OK && i < at.count; i++) {
        nyb_linear *const linear = &m->linears[block * m->linear_count + at.first + i];
        *linear = (nyb_linear){
            .module = name_in_block(m, block, part->linears[i].name, ""),
            .rows = nyb_extent_of(&m->config, part->linears[i].rows),
            .cols = at.width,
        };
        if (!linear->module)
            return nyb_no_memory(err, "a tensor's name", 1, 1);
        status = bind_linear(linear, m, is_biased(&m->config, part->linears[i].bias), err);
    }
    return status;
}

// A head of its own is used even where config.json ties it to the embedding: the file has the
// last word.
static nyb_status bind_head(nyb_model *m, nyb_err *err)
{
    const nyb_arch *const arch = m->config.arch;
    const char *const name = nyb_arena_format(&m->arena, "%s.weight", arch->head);
    if (!name)
        return nyb_no_memory(err, "a tensor's name", 1, 1);
    m->head = (nyb_linear){.module = arch->head, .rows = m->config.vocab, .cols = m->config.hidden};
    if (m->config.tied && !nyb_checkpoint_find(m->checkpoint, name)) {
        m->head.weight = m->embedding;
        return NYB_OK;
    }
    const nyb_status status = bind_linear(&m->head, m, false, err);
    if (status != NYB_OK || !m->head.quantized)
        return status;
    return nyb_quantization_read(&m->head_codes, m->quantization, m->checkpoint, arch->head,
                                 m->head.rows, m->head.cols, err);
}

static nyb_status bind_all(nyb_model *m, nyb_err *err)
{
    const nyb_arch *const arch = m->config.arch;
    const size_t blocks = m->config.blocks;
    for (size_t s = 0; s < arch->stage_count; s++)
        m->linear_count += nyb_arch_linears(&arch->stages[s]);
    m->linears = nyb_arena_alloc(&m->arena, blocks * m->linear_count, sizeof(*m->linears));
    m->norms = nyb_arena_alloc(&m->arena, blocks * NYB_STAGES, sizeof(*m->norms));
    if (!m->linears || !m->norms)
        return nyb_no_memory(err, "the list of layers", blocks, sizeof(*m->linears));

    nyb_status status =
        bind_tensor(&m->embedding, m, nyb_arena_format(&m->arena, "%s.weight", arch->embedding),
                    m->config.vocab, m->config.hidden, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        for (size_t s = 0; status == NYB_OK && s < arch->stage_count; s++)
            status = bind_stage(m, b, s, err);
    }
    if (status == NYB_OK)
        status = bind_tensor(&m->final_norm, m,
                             nyb_arena_format(&m->arena, "%s.weight", arch->final_norm),
                             m->config.hidden, 0, err);
    if (status == NYB_OK)
        status = bind_head(m, err);
    return status;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

// Whether `name` is module + ".weight", ".bias" where there is one, or any part of a quantised
// layer.
static bool belongs_to(const char *name, const nyb_linear *linear)
{
    const size_t length = strlen(linear->module);
    if (!starts_with(name, linear->module) || name[length] != '.')
        return false;
    return linear->quantized || strcmp(name + length, ".weight") == 0 ||
           (linear->bias && strcmp(name + length, ".bias") == 0);
}

static bool is_known_in_block(const nyb_model *m, const char *name, size_t block)
{
    for (size_t s = 0; s < NYB_STAGES; s++) {
        const nyb_tensor *const norm = m->norms[block * NYB_STAGES + s];
        if (norm && strcmp(norm->name, name) == 0)
            return true;
    }
    for (size_t i = 0; i < m->linear_count; i++) {
        if (belongs_to(name, nyb_linear_at(m, block, i)))
            return true;
    }
    // Old files hold the frequencies of the rotary positions, which follow from config.json.
    static const char frequencies[] = ".rotary_emb.inv_freq";
    const size_t length = strlen(name), tail = strlen(frequencies);
    return length > tail && strcmp(name + length - tail, frequencies) == 0;
}

static bool is_known(const nyb_model *m, const char *name)
{
    const char *const prefix = m->config.arch->block;
    if (strcmp(name, m->embedding->name) == 0 || strcmp(name, m->final_norm->name) == 0 ||
        belongs_to(name, &m->head))
        return true;
    if (!starts_with(name, prefix))
        return false;
    const char *const digits = name + strlen(prefix);
    char *end = NULL;
    const unsigned long block = strtoul(digits, &end, 10);
    return end != digits && *end == '.' && block < m->config.blocks &&
           is_known_in_block(m, name, block);
}

// A tensor that nobody reads would be a part of the model that is silently left out.
static nyb_status check_leftovers(const nyb_model *m, nyb_err *err)
{
    for (size_t i = 0; i < nyb_checkpoint_count(m->checkpoint); i++) {
        const nyb_tensor *const t = nyb_checkpoint_at(m->checkpoint, i);
        if (!is_known(m, t->name))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: tensor '%s' is no part of a model of type '%s' with %zu layers",
                            nyb_checkpoint_file_of(m->checkpoint, t), t->name,
                            m->config.arch->model_type, m->config.blocks);
    }
    return NYB_OK;
}

static nyb_status open_gguf(nyb_model *m, nyb_err *err)
{
    json_t *config = NULL;
    nyb_status status = nyb_checkpoint_open(&m->checkpoint, m->folder, err);
    if (status == NYB_OK)
        status = nyb_gguf_config(&config, nyb_checkpoint_gguf(m->checkpoint), err);
    if (status == NYB_OK)
        status = nyb_model_config_read(&m->config, config, m->folder, err);
    json_decref(config);
    if (status == NYB_OK)
        status = bind_all(m, err);
    return status == NYB_OK ? check_leftovers(m, err) : status;
}

static nyb_status open_all(nyb_model *m, const char *folder, nyb_err *err)
{
    m->folder = nyb_arena_text(&m->arena, folder, strlen(folder));
    if (!m->folder)
        return nyb_no_memory(err, "a path", strlen(folder), 1);
    if (!nyb_path_is_folder(folder) && !nyb_gguf_named(folder))
        return nyb_fail(err, NYB_E_IO,
                        "%s: not a model, which is a folder with config.json and safetensors "
                        "files, or a GGUF file",
                        folder);
    if (!nyb_path_is_folder(folder))
        return open_gguf(m, err);
    nyb_status status = nyb_model_config_load(&m->config, folder, err);
    if (status == NYB_OK)
        status = nyb_checkpoint_open(&m->checkpoint, folder, err);
    if (status == NYB_OK)
        status = nyb_quantization_load(&m->quantization, folder, err);
    if (status == NYB_OK)
        status = bind_all(m, err);
    if (status == NYB_OK)
        status = check_leftovers(m, err);
    return status;
}

nyb_status nyb_model_open(nyb_model **out, const char *folder, nyb_err *err)
{
    *out = NULL;
    nyb_model *const m = nyb_alloc(1, sizeof(*m));
    if (!m)
        return nyb_no_memory(err, "a model", 1, sizeof(*m));
    const nyb_status status = open_all(m, folder, err);
    if (status != NYB_OK) {
        nyb_model_close(m);
        return status;
    }
    *out = m;
    return NYB_OK;
}

void nyb_model_close(nyb_model *m)
{
    if (!m)
        return;
    nyb_qweight_clear(&m->head_codes);
    nyb_quantization_close(m->quantization);
    nyb_checkpoint_close(m->checkpoint);
    nyb_arena_clear(&m->arena);
    nyb_free(m);
}

const char *nyb_model_folder(const nyb_model *m)
{
    return m->folder;
}

const nyb_model_config *nyb_model_config_of(const nyb_model *m)
{
    return &m->config;
}

const nyb_checkpoint *nyb_model_checkpoint(const nyb_model *m)
{
    return m->checkpoint;
}

const nyb_quantization *nyb_model_quantization(const nyb_model *m)
{
    return m->quantization;
}

size_t nyb_block_count(const nyb_model *m)
{
    return m->config.blocks;
}

size_t nyb_stage_count(const nyb_model *m, size_t block)
{
    (void) block;
    return m->config.arch->stage_count;
}

nyb_stage nyb_stage_at(const nyb_model *m, size_t block, size_t stage)
{
    (void) block;
    const nyb_arch *const arch = m->config.arch;
    nyb_stage at = {.count = nyb_arch_linears(&arch->stages[stage]),
                    .width = nyb_extent_of(&m->config, arch->stages[stage].width)};
    for (size_t s = 0; s < stage; s++)
        at.first += nyb_arch_linears(&arch->stages[s]);
    return at;
}

size_t nyb_linear_count(const nyb_model *m, size_t block)
{
    (void) block;
    return m->linear_count;
}

const nyb_linear *nyb_linear_at(const nyb_model *m, size_t block, size_t linear)
{
    return &m->linears[block * m->linear_count + linear];
}

const nyb_tensor *nyb_norm_at(const nyb_model *m, size_t block, size_t stage)
{
    return m->norms[block * NYB_STAGES + stage];
}

const nyb_tensor *nyb_model_embedding(const nyb_model *m)
{
    return m->embedding;
}

const nyb_tensor *nyb_model_final_norm(const nyb_model *m)
{
    return m->final_norm;
}

const nyb_linear *nyb_model_head(const nyb_model *m)
{
    return &m->head;
}

const nyb_qweight *nyb_model_head_codes(const nyb_model *m)
{
    return &m->head_codes;
}
