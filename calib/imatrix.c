#include "calib/imatrix.h"

#include <string.h>

#include "core/file.h"
#include "formats/gguf_names.h"

static nyb_status check(const nyb_job *job, const nyb_gguf_arch *arch, nyb_err *err)
{
    const nyb_model_config *const config = nyb_model_config_of(job->model);
    if (!arch)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: GGUF has no names for the layers of a model of type '%s', so there is "
                        "no importance matrix of it",
                        nyb_model_folder(job->model), config->arch->model_type);
    if (config->experts.count > 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: an importance matrix of a model with experts is not supported",
                        nyb_model_folder(job->model));
    return NYB_OK;
}

nyb_status nyb_imatrix_open(nyb_imatrix *out, const nyb_job *job, nyb_err *err)
{
    const char *const type = nyb_model_config_of(job->model)->arch->model_type;
    *out = (nyb_imatrix){.job = job};
    const nyb_status status = check(job, nyb_gguf_arch_of_model(type, NULL, NULL), err);
    if (status != NYB_OK)
        return status;
    out->layers = nyb_arena_alloc(&out->arena, job->count, sizeof(*out->layers));
    return out->layers ? NYB_OK : nyb_no_memory(err, "layers", job->count, sizeof(*out->layers));
}

void nyb_imatrix_close(nyb_imatrix *imatrix)
{
    nyb_arena_clear(&imatrix->arena);
    *imatrix = (nyb_imatrix){0};
}

nyb_status nyb_imatrix_add(nyb_imatrix *m, const nyb_job_layer *layer, const nyb_hessian *hessian,
                           nyb_err *err)
{
    const char *const type = nyb_model_config_of(m->job->model)->arch->model_type;
    const char *const module = layer->linear->module;
    const size_t cols = layer->linear->cols;
    float *const sums = nyb_arena_alloc(&m->arena, cols, sizeof(*sums));
    int expert = NYB_GGUF_NO_EXPERT;
    const char *const folder = nyb_arena_format(&m->arena, "%s.weight", module);
    const char *const name =
        folder ? nyb_gguf_file_name(&m->arena, nyb_gguf_arch_of_model(type, NULL, NULL), folder,
                                    &expert)
               : NULL;
    if (!sums || !name)
        return nyb_no_memory(err, "an importance matrix", cols, sizeof(*sums));
    for (size_t j = 0; j < cols; j++)
        sums[j] = nyb_row(hessian->h, j)[j];
    m->layers[m->count].name = name;
    m->layers[m->count].sums = sums;
    m->layers[m->count].count = (float) hessian->tokens;
    m->layers[m->count++].cols = cols;
    return NYB_OK;
}

static nyb_status describe(nyb_imatrix *m, nyb_gguf_head *head, nyb_tensor *tensors,
                           const char **names, nyb_err *err)
{
    const nyb_samples_params *const samples = &m->job->params->samples;
    nyb_gguf_text *const sets = nyb_arena_alloc(&m->arena, samples->path_count + 1, sizeof(*sets));
    if (!sets)
        return nyb_no_memory(err, "names", samples->path_count, sizeof(*sets));
    for (size_t i = 0; i < samples->path_count; i++)
        sets[i] = (nyb_gguf_text){samples->paths[i], strlen(samples->paths[i])};
    nyb_gguf_add_text(head, "general.type", "imatrix");
    nyb_gguf_add_texts(head, "imatrix.datasets", sets, samples->path_count);
    nyb_gguf_add_u32(head, "imatrix.chunk_count", (uint32_t) m->job->samples.count);
    nyb_gguf_add_u32(head, "imatrix.chunk_size", (uint32_t) m->job->samples.length);
    for (size_t i = 0; i < m->count; i++) {
        names[2 * i] = nyb_arena_format(&m->arena, "%s.in_sum2", m->layers[i].name);
        names[2 * i + 1] = nyb_arena_format(&m->arena, "%s.counts", m->layers[i].name);
        if (!names[2 * i] || !names[2 * i + 1])
            return nyb_no_memory(err, "names", m->count, 1);
        tensors[2 * i] = (nyb_tensor){.dtype = NYB_F32, .rank = 2, .shape = {1, m->layers[i].cols}};
        tensors[2 * i + 1] = (nyb_tensor){.dtype = NYB_F32, .rank = 2, .shape = {1, 1}};
    }
    return NYB_OK;
}

static nyb_status save(nyb_imatrix *m, nyb_gguf_head *head, nyb_err *err)
{
    const size_t count = 2 * m->count;
    nyb_tensor *const tensors = nyb_arena_alloc(&m->arena, count, sizeof(*tensors));
    const char **const names = nyb_arena_alloc(&m->arena, count, sizeof(*names));
    size_t *const offsets = nyb_arena_alloc(&m->arena, count, sizeof(*offsets));
    size_t end = 0;
    if (!tensors || !names || !offsets)
        return nyb_no_memory(err, "tensors", count, sizeof(*tensors));
    nyb_status status = describe(m, head, tensors, names, err);
    if (status == NYB_OK)
        status = nyb_gguf_finish(head, tensors, names, count, offsets, &end, err);
    if (status != NYB_OK)
        return status;
    unsigned char *const bytes = nyb_arena_alloc(&m->arena, end, 1);
    if (!bytes)
        return nyb_no_memory(err, "an importance matrix", end, 1);
    memcpy(bytes, head->at, head->length);
    for (size_t i = 0; i < m->count; i++) {
        memcpy(bytes + offsets[2 * i], m->layers[i].sums, m->layers[i].cols * sizeof(float));
        memcpy(bytes + offsets[2 * i + 1], &m->layers[i].count, sizeof(float));
    }
    return nyb_file_write(m->job->params->imatrix, bytes, end, err);
}

nyb_status nyb_imatrix_save(nyb_imatrix *imatrix, nyb_err *err)
{
    nyb_gguf_head head = {0};
    const nyb_status status = save(imatrix, &head, err);
    nyb_gguf_head_clear(&head);
    return status;
}
