#include "model/model.h"

#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "model/binding.h"
#include "model/gguf_config.h"
#include "model/keras_hub_config.h"

static nyb_status bind_all(nyb_model *m, nyb_err *err)
{
    nyb_status status = nyb_bind_outer(m, err);
    if (status != NYB_OK)
        return status;
    m->blocks = nyb_arena_alloc(&m->arena, m->config.blocks, sizeof(*m->blocks));
    if (!m->blocks)
        return nyb_no_memory(err, "the list of layers", m->config.blocks, sizeof(*m->blocks));
    for (size_t b = 0; status == NYB_OK && b < m->config.blocks; b++)
        status = nyb_bind_block(m, b, err);
    return status == NYB_OK ? nyb_check_leftovers(m, err) : status;
}

// A GGUF file or a preset, whose configuration is translated.
static nyb_status open_foreign(nyb_model *m, nyb_err *err)
{
    json_t *config = NULL;
    nyb_status status = nyb_checkpoint_open(&m->checkpoint, m->folder, err);
    if (status == NYB_OK && nyb_checkpoint_keras(m->checkpoint))
        status = nyb_hub_config(&config, nyb_checkpoint_keras(m->checkpoint), err);
    else if (status == NYB_OK)
        status = nyb_gguf_config(&config, nyb_checkpoint_gguf(m->checkpoint), err);
    if (status == NYB_OK)
        status = nyb_model_config_read(&m->config, config, m->folder, err);
    json_decref(config);
    return status == NYB_OK ? bind_all(m, err) : status;
}

// Everything that config.json asks for and nybble does not have, in one line.
static nyb_status look(nyb_model *m, nyb_misses *misses, nyb_err *err)
{
    nyb_err fault;
    json_t *doc = NULL;
    const char *const path = nyb_path_join(&m->arena, m->folder, "config.json");
    nyb_status status =
        path ? nyb_json_load(&doc, path, err) : nyb_no_memory(err, "a path", strlen(m->folder), 1);
    if (status == NYB_OK)
        status = nyb_model_config_look(&m->config, misses, doc, path, err);
    json_decref(doc);
    if (status != NYB_OK)
        return status;
    status = nyb_quantization_load(&m->quantization, m->folder, &fault);
    if (status == NYB_E_UNSUPPORTED || (status == NYB_E_FORMAT && misses->count > 0))
        nyb_misses_add_line(misses, &fault, path);
    else if (status != NYB_OK)
        return nyb_fail(err, status, "%s", fault.text);
    return nyb_misses_fail(misses, path, err);
}

static nyb_status open_all(nyb_model *m, const char *folder, nyb_err *err)
{
    m->folder = nyb_arena_text(&m->arena, folder, strlen(folder));
    if (!m->folder)
        return nyb_no_memory(err, "a path", strlen(folder), 1);
    if (!nyb_path_is_folder(folder) && !nyb_gguf_named(folder))
        return nyb_fail(err, NYB_E_IO,
                        "%s: not a model, which is a folder with config.json and safetensors "
                        "files, a KerasHub preset, or a GGUF file",
                        folder);
    if (!nyb_path_is_folder(folder) || nyb_keras_is(folder))
        return open_foreign(m, err);
    nyb_misses misses = {0};
    nyb_status status = look(m, &misses, err);
    if (status == NYB_OK)
        status = nyb_checkpoint_open(&m->checkpoint, folder, err);
    if (status == NYB_OK)
        status = bind_all(m, err);
    return status;
}

nyb_status nyb_model_look(const nyb_arch **arch, nyb_misses *misses, const char *folder,
                          nyb_err *err)
{
    *arch = NULL;
    nyb_model *const m = nyb_alloc(1, sizeof(*m));
    if (!m)
        return nyb_no_memory(err, "a model", 1, sizeof(*m));
    m->folder = folder;
    const nyb_status status = look(m, misses, err);
    *arch = m->config.arch;
    nyb_model_close(m);
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
    nyb_qweight_clear(&m->embedding_codes);
    nyb_lowbit_clear(&m->head_codes);
    nyb_free(m->head_floats);
    nyb_free(m->head_input);
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
    return m->blocks[block].stage_count;
}

nyb_stage nyb_stage_at(const nyb_model *m, size_t block, size_t stage)
{
    return m->blocks[block].stages[stage];
}

size_t nyb_linear_count(const nyb_model *m, size_t block)
{
    return m->blocks[block].linear_count;
}

const nyb_linear *nyb_linear_at(const nyb_model *m, size_t block, size_t linear)
{
    return &m->blocks[block].linears[linear];
}

const nyb_tensor *nyb_vector_at(const nyb_model *m, size_t block, nyb_vector vector)
{
    return m->blocks[block].vectors[vector];
}

const nyb_linear *nyb_model_embedding(const nyb_model *m)
{
    return &m->outer.embedding;
}

nyb_status nyb_model_embed(const nyb_model *m, size_t id, nyb_mat out, nyb_err *err)
{
    if (!m->outer.embedding.quantized)
        return nyb_tensor_widen(m->outer.embedding.weight, id, out, err);
    nyb_qweight_dequantize(&m->embedding_codes, id, out);
    return NYB_OK;
}

size_t nyb_model_outer_bytes(const nyb_model *m)
{
    const nyb_qweight *const q = &m->embedding_codes;
    const nyb_linear *const head = &m->head;
    size_t bytes = q->rows * q->cols + q->rows * q->groups * (sizeof(float) + 1);
    if (m->head_floats)
        bytes += head->rows * head->cols * sizeof(float);
    else if (head->quantized)
        bytes += nyb_lowbit_bytes(head->rows, head->cols, head->bits, head->group_size);
    return bytes;
}

const nyb_outer *nyb_model_outer(const nyb_model *m)
{
    return &m->outer;
}

const nyb_linear *nyb_model_head(const nyb_model *m)
{
    return &m->head;
}

bool nyb_model_head_tied(const nyb_model *m)
{
    return m->head_tied;
}

nyb_weight nyb_model_head_weight(const nyb_model *m)
{
    nyb_weight weight = {.rows = m->head.rows, .cols = m->head.cols};
    if (m->head_floats) {
        weight.at = m->head_floats;
        weight.dtype = NYB_F32;
    } else if (m->head.quantized) {
        weight.codes = &m->head_codes;
    } else if (nyb_linear_is_plain(&m->head)) {
        weight.at = m->head.weight->at;
        weight.dtype = m->head.weight->dtype;
    }
    return weight;
}

nyb_weight_input nyb_model_head_input(const nyb_model *m, const float *x)
{
    const nyb_weight weight = nyb_model_head_weight(m);
    return nyb_weight_input_make(&weight, m->head_input, x);
}
