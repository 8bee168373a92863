#include "calib/output_plan.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "formats/safetensors.h"

typedef struct planning {
    const nyb_job *job;
    nyb_output_plan *plan;
    nyb_arena *arena;
    bool *planned; // [layer_count] whether the layer's tensors are in the plan
    nyb_err *err;
} planning;

static int by_module(const void *a, const void *b)
{
    const nyb_job_layer *const *const x = a, *const *const y = b;
    return strcmp((*x)->linear->module, (*y)->linear->module);
}

// The index of the layer whose name is the first `length` bytes of `name`; layer_count: none.
static size_t find_layer(const nyb_output_plan *plan, const char *name, size_t length)
{
    size_t low = 0, high = plan->layer_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const char *const module = plan->layers[middle]->linear->module;
        const int side = strncmp(name, module, length);
        if (side == 0 && module[length] == '\0')
            return middle;
        if (side > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return plan->layer_count;
}

const nyb_job_layer *nyb_output_layer(const nyb_output_plan *plan, const char *module)
{
    const size_t index = find_layer(plan, module, strlen(module));
    return index < plan->layer_count ? plan->layers[index] : NULL;
}

static nyb_status list_layers(planning *p)
{
    const nyb_job *const job = p->job;
    const size_t count = job->count + job->outer;
    nyb_output_plan *const plan = p->plan;
    plan->layers = nyb_arena_alloc(p->arena, count, sizeof(*plan->layers));
    p->planned = nyb_arena_alloc(p->arena, count, sizeof(*p->planned));
    if (!plan->layers || !p->planned)
        return nyb_no_memory(p->err, "layers", count, sizeof(*plan->layers));
    for (size_t i = 0; i < count; i++)
        plan->layers[i] = &job->layers[i];
    plan->layer_count = count;
    if (count > 1)
        qsort(plan->layers, count, sizeof(*plan->layers), by_module);
    return NYB_OK;
}

// ---- Items ----------------------------------------------------------------------------------

static void add(planning *p, nyb_output_item item)
{
    p->plan->items[p->plan->count] = item;
    p->plan->items[p->plan->count].tensor = &p->plan->tensors[p->plan->count];
    p->plan->count++;
}

static nyb_status add_copy(planning *p, const nyb_tensor *source)
{
    nyb_tensor *const tensor = &p->plan->tensors[p->plan->count];
    const nyb_dtype dtype = p->job->dtype;
    *tensor = *source;
    const bool number = nyb_dtype_is_float(source->dtype) || nyb_dtype_is_block(source->dtype);
    if (p->job->casts && source->rank > 1 && number && source->dtype != dtype) {
        const nyb_status status =
            nyb_tensor_describe(tensor, source->name, dtype, source->rank, source->shape, p->err);
        if (status != NYB_OK)
            return status;
    }
    for (size_t i = 0; i < p->job->replaced_count; i++) {
        if (p->job->replaced[i].base == source) {
            add(p, (nyb_output_item){.source = p->job->replaced[i].with,
                                     .in_memory = p->job->replaced[i].in_memory});
            return NYB_OK;
        }
    }
    add(p, (nyb_output_item){.source = source});
    return NYB_OK;
}

bool nyb_output_turned(const nyb_job *job, const nyb_job_layer *layer)
{
    const bool inside = layer->block < nyb_block_count(job->model);
    return layer->linear->transposed ||
           (job->unpacks && inside && nyb_model_config_of(job->model)->arch->conv1d);
}

static nyb_status add_floats(planning *p, const nyb_job_layer *layer)
{
    const nyb_linear *const l = layer->linear;
    const bool turned = nyb_output_turned(p->job, layer);
    const size_t shape[] = {turned ? l->cols : l->rows, turned ? l->rows : l->cols};
    const char *const name = nyb_arena_format(p->arena, "%s.weight", l->module);
    if (!name)
        return nyb_no_memory(p->err, l->module, 1, 1);
    const nyb_status status = nyb_tensor_describe(&p->plan->tensors[p->plan->count], name,
                                                  layer->dtype, 2, shape, p->err);
    if (status == NYB_OK)
        add(p, (nyb_output_item){.layer = layer});
    return status;
}

static nyb_status add_layer(planning *p, const nyb_job_layer *layer)
{
    size_t made = 0;
    if (layer->form != NYB_FORM_CODES)
        return add_floats(p, layer);
    const nyb_status status =
        nyb_layout_tensors(layer->layout, &p->plan->tensors[p->plan->count], &made, &layer->spec,
                           layer->linear->module, p->arena, p->err);
    for (size_t i = 0; status == NYB_OK && i < made; i++)
        add(p, (nyb_output_item){.layer = layer});
    return status;
}

// The layers that a tensor holds together, as experts do; none if it is copied.
static nyb_status add_shared(planning *p, const nyb_tensor *tensor, size_t *added)
{
    const nyb_job *const job = p->job;
    nyb_status status = NYB_OK;
    *added = 0;
    for (size_t i = 0; status == NYB_OK && i < job->count; i++) {
        const nyb_job_layer *const layer = &job->layers[i];
        if (layer->linear->weight != tensor || layer->form == NYB_FORM_COPY)
            continue;
        status = add_layer(p, layer);
        ++*added;
    }
    return status;
}

static bool is_zero(const nyb_tensor *tensor)
{
    const unsigned char *const bytes = tensor->at;
    for (size_t i = 0; i < tensor->bytes; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

// Writers of quantised layers add biases of zeros, which no other layer of the family has.
static nyb_status add_bias(planning *p, const nyb_job_layer *layer, const nyb_tensor *bias)
{
    if (!layer->linear->stray_bias || layer->form == NYB_FORM_COPY || p->job->keeps_config)
        return add_copy(p, bias);
    if (is_zero(bias))
        return NYB_OK;
    if (layer->form == NYB_FORM_CODES)
        return add_copy(p, bias);
    return nyb_fail(p->err, NYB_E_UNSUPPORTED,
                    "%s: the quantised layer has the bias '%s', and config.json says that there is "
                    "none: readers of float weights would leave it out",
                    nyb_model_folder(p->job->model), bias->name);
}

static nyb_status add_tensor(planning *p, const nyb_tensor *tensor)
{
    const nyb_output_plan *const plan = p->plan;
    const char *const dot = strrchr(tensor->name, '.');
    if (tensor->rank > 2) {
        size_t added = 0;
        const nyb_status status = add_shared(p, tensor, &added);
        return status == NYB_OK && added == 0 ? add_copy(p, tensor) : status;
    }
    const size_t index =
        dot ? find_layer(plan, tensor->name, (size_t) (dot - tensor->name)) : plan->layer_count;
    if (index == plan->layer_count)
        return add_copy(p, tensor);
    const nyb_job_layer *const layer = plan->layers[index];
    const nyb_linear *const l = layer->linear;
    const bool part = l->quantized || tensor == l->weight;
    if (tensor == l->bias)
        return add_bias(p, layer, tensor);
    if (!part || layer->form == NYB_FORM_COPY)
        return add_copy(p, tensor);
    if (p->planned[index])
        return NYB_OK;
    p->planned[index] = true;
    return add_layer(p, layer);
}

nyb_status nyb_output_plan_make(nyb_output_plan *out, const nyb_job *job, nyb_arena *arena,
                                nyb_err *err)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(job->model);
    planning p = {.job = job, .plan = out, .arena = arena, .err = err};
    *out = (nyb_output_plan){0};
    nyb_status status = list_layers(&p);
    if (status != NYB_OK)
        return status;
    const size_t room =
        nyb_checkpoint_count(source) + out->layer_count * (size_t) NYB_LAYOUT_TENSORS;
    out->tensors = nyb_arena_alloc(arena, room, sizeof(*out->tensors));
    out->items = nyb_arena_alloc(arena, room, sizeof(*out->items));
    if (!out->tensors || !out->items)
        return nyb_no_memory(err, "output tensors", room, sizeof(*out->tensors));
    for (size_t i = 0; status == NYB_OK && i < nyb_checkpoint_count(source); i++)
        status = add_tensor(&p, nyb_checkpoint_at(source, i));
    // A head that had no tensor of its own.
    for (size_t i = 0; status == NYB_OK && job->unties && i < out->layer_count; i++) {
        if (!p.planned[i] && out->layers[i]->linear == nyb_model_head(job->model))
            status = add_layer(&p, out->layers[i]);
    }
    return status;
}
