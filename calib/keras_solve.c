#include "calib/keras_solve.h"

#include <string.h>

#include "calib/job.h"
#include "core/dtype.h"
#include "core/log.h"
#include "formats/keras_einsum.h"
#include "model/keras_op.h"

// ---- Kernels --------------------------------------------------------------------------------

// How Keras flattens the kernel of a Dense or EinsumDense for its gptq arrays, [*in, *out].
static nyb_status flat_size(const nyb_keras_layer *layer, unsigned rank, const size_t *shape,
                            size_t *in, size_t *out, nyb_err *err)
{
    const unsigned inputs = nyb_keras_gptq_inputs(rank, shape);
    if (inputs == 0)
        return nyb_graph_fail(layer, NYB_E_UNSUPPORTED, err,
                              "its kernel has %u axes, and Keras stores those of 2 and 3 in its "
                              "gptq arrays: leave it out (method 'none' in a recipe)",
                              rank);
    *in = *out = 1;
    for (unsigned i = 0; i < rank; i++)
        *(i < inputs ? in : out) *= shape[i];
    return NYB_OK;
}

// The kernel as the solver takes it, [out, in], from or to the file's order.
static void turn(nyb_mat w, const float *kernel)
{
    for (size_t i = 0; i < w.rows; i++) {
        for (size_t j = 0; j < w.cols; j++)
            nyb_row(w, i)[j] = kernel[j * w.rows + i];
    }
}

static void turn_back(float *kernel, nyb_mat w)
{
    for (size_t i = 0; i < w.rows; i++) {
        for (size_t j = 0; j < w.cols; j++)
            kernel[j * w.rows + i] = nyb_row(w, i)[j];
    }
}

// Keras keeps scales in the type of its weights. A group wider than the layer is the whole row.
static nyb_solve_params params_of(const nyb_settings *s, size_t inputs, nyb_dtype dtype)
{
    return nyb_settings_solve(s, s->group_size >= inputs ? 0 : s->group_size, dtype, 0);
}

static nyb_status kernel_dtype(nyb_keras_file *file, const nyb_keras_layer *layer, nyb_dtype *out,
                               nyb_err *err)
{
    nyb_tensor kernel;
    const nyb_status status = nyb_keras_variable(file, layer, 0, &kernel, err);
    *out = status == NYB_OK && nyb_dtype_is_float(kernel.dtype) ? kernel.dtype : NYB_F32;
    return status;
}

// ---- The walk -------------------------------------------------------------------------------

typedef struct walk {
    const nyb_context *ctx;
    nyb_graph graph;
    nyb_graph_run run;
    nyb_graph_watch watch;
    nyb_keras_solution *out;
    nyb_settings *settings; // [graph layers * NYB_GRAPH_LINEARS]
    bool *solved;           // [graph layers]
    size_t total;           // linears to solve
    // What is watched: the linears of one layer in one stage.
    size_t layer;
    unsigned stage;
    nyb_hessian hessians[NYB_GRAPH_LINEARS];
} walk;

static bool is_wanted(const walk *w, size_t layer, size_t index, unsigned stage)
{
    return nyb_graph_linear_at(&w->graph, layer, index)->stage == stage &&
           !w->settings[layer * NYB_GRAPH_LINEARS + index].skip;
}

static nyb_status see(void *user, const nyb_graph_linear *linear, nyb_mat x, nyb_err *err)
{
    walk *const w = user;
    for (size_t i = 0; i < nyb_graph_linear_count(&w->graph, w->layer); i++) {
        if (nyb_graph_linear_at(&w->graph, w->layer, i) == linear && w->hessians[i].h.at)
            return nyb_hessian_add(w->ctx, &w->hessians[i], x, err);
    }
    return NYB_OK;
}

static nyb_status solve_linear(walk *w, nyb_graph_linear *linear, nyb_keras_solved *s,
                               const nyb_hessian *hessian, nyb_err *err)
{
    nyb_dtype dtype = NYB_F32;
    nyb_status status = kernel_dtype(w->graph.file, linear->layer, &dtype, err);
    if (status != NYB_OK)
        return status;
    const nyb_solve_params params = params_of(&s->settings, linear->in, dtype);
    nyb_arena arena = {0};
    nyb_gptq_factor factor = {0};
    const nyb_mat m = nyb_arena_mat(&arena, linear->out, linear->in);
    nyb_solve_input input = {.hessian = hessian};
    if (!m.at)
        status = nyb_no_memory(err, linear->layer->scope, linear->out, linear->in * sizeof(float));
    if (status == NYB_OK && params.method == NYB_METHOD_GPTQ) {
        status = nyb_gptq_prepare(w->ctx, &factor, hessian, &params.gptq, err);
        input.factor = &factor;
    }
    if (status == NYB_OK) {
        turn(m, linear->kernel);
        status = nyb_solve_layer(w->ctx, input, m, &params, &s->q, &s->report, err);
        s->report.seconds += factor.seconds;
    }
    if (status == NYB_OK) {
        nyb_qweight_dequantize(&s->q, 0, m);
        turn_back(linear->kernel, m);
    }
    nyb_gptq_factor_clear(&factor);
    nyb_arena_clear(&arena);
    return status;
}

static nyb_status name_layer(const nyb_graph_linear *linear, nyb_status status, nyb_err *err)
{
    if (status == NYB_OK || !err)
        return status;
    nyb_err inner = *err;
    return nyb_graph_fail(linear->layer, status, err, "%s", inner.text);
}

static nyb_status solve_stage(walk *w, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < nyb_graph_linear_count(&w->graph, w->layer); i++) {
        nyb_graph_linear *const linear = nyb_graph_linear_at(&w->graph, w->layer, i);
        if (!w->hessians[i].h.at || status != NYB_OK)
            continue;
        nyb_keras_solved *const s = &w->out->layers[w->out->count++];
        *s = (nyb_keras_solved){
            .layer = linear->layer,
            .settings = w->settings[w->layer * NYB_GRAPH_LINEARS + i],
        };
        status = name_layer(linear, solve_linear(w, linear, s, &w->hessians[i], err), err);
        nyb_step(w->ctx, &(nyb_progress){.stage = "calibrate",
                                         .item = linear->layer->scope,
                                         .unit = "layers",
                                         .done = w->out->count,
                                         .total = w->total});
    }
    for (size_t i = 0; i < NYB_GRAPH_LINEARS; i++)
        nyb_hessian_clear(&w->hessians[i]);
    return status;
}

// Runs the calls from `first` to the layer's last one; of a shared layer that takes others with it,
// whose values are not the final ones and go again.
static nyb_status capture(walk *w, size_t first, nyb_err *err)
{
    const size_t last = nyb_graph_last_call(&w->graph, w->layer);
    nyb_status status = NYB_OK;
    w->run.watch = &w->watch;
    for (size_t c = first; c <= last && status == NYB_OK; c++)
        status = nyb_graph_make(&w->run, c, err);
    w->run.watch = NULL;
    for (size_t c = first; c <= last; c++)
        nyb_array_clear(&w->run.values[w->graph.calls[c].output]);
    return status;
}

static nyb_status solve_layer(walk *w, size_t call, nyb_err *err)
{
    const size_t layer = w->graph.calls[call].layer;
    nyb_status status = NYB_OK;
    if (w->solved[layer])
        return NYB_OK;
    w->solved[layer] = true;
    w->layer = layer;
    for (w->stage = 0; w->stage < nyb_graph_stage_count(&w->graph, layer); w->stage++) {
        bool any = false;
        for (size_t i = 0; i < nyb_graph_linear_count(&w->graph, layer); i++) {
            if (status != NYB_OK || !is_wanted(w, layer, i, w->stage))
                continue;
            status = nyb_hessian_init(&w->hessians[i], nyb_graph_linear_at(&w->graph, layer, i)->in,
                                      err);
            any = true;
        }
        if (status == NYB_OK && any)
            status = capture(w, call, err);
        if (status == NYB_OK && any)
            status = solve_stage(w, err);
    }
    for (size_t i = 0; i < NYB_GRAPH_LINEARS; i++)
        nyb_hessian_clear(&w->hessians[i]);
    return status;
}

static nyb_status walk_calls(walk *w, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t c = 0; c < w->graph.call_count && status == NYB_OK; c++) {
        status = solve_layer(w, c, err);
        if (status == NYB_OK && w->out->count < w->total) { // nothing more is to be seen else
            status = nyb_graph_make(&w->run, c, err);
            nyb_graph_release(&w->run, c);
        }
    }
    return status;
}

// ---- What it starts from --------------------------------------------------------------------

// Keras' form of the kernel has to be the one in which it is multiplied.
static nyb_status check_flat(const nyb_graph_linear *linear, nyb_err *err)
{
    size_t in = 0, out = 0;
    const nyb_status status = flat_size(linear->layer, linear->rank, linear->shape, &in, &out, err);
    if (status != NYB_OK || (linear->plain && in == linear->in && out == linear->out))
        return status;
    return nyb_graph_fail(linear->layer, NYB_E_UNSUPPORTED, err,
                          "it takes %zu inputs to %zu outputs, and Keras would store its kernel as "
                          "%zu to %zu%s: leave it out (method 'none' in a recipe)",
                          linear->in, linear->out, in, out,
                          linear->plain ? "" : ", with its axes in another order");
}

static nyb_status choose(walk *w, const nyb_keras_choice *choice, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t l = 0; l < w->graph.layer_count; l++) {
        for (size_t i = 0; i < nyb_graph_linear_count(&w->graph, l) && status == NYB_OK; i++) {
            nyb_settings *const s = &w->settings[l * NYB_GRAPH_LINEARS + i];
            const nyb_graph_linear *const linear = nyb_graph_linear_at(&w->graph, l, i);
            status = choice->settings(choice->user, linear->layer, s, err);
            if (status == NYB_OK && !s->skip)
                status = check_flat(linear, err);
            if (status == NYB_OK && !s->skip && nyb_graph_last_call(&w->graph, l) == SIZE_MAX)
                status =
                    nyb_graph_fail(linear->layer, NYB_E_UNSUPPORTED, err,
                                   "no output of the model comes of it, so it sees no samples");
            w->total += !s->skip;
        }
    }
    return status;
}

static nyb_status open_walk(walk *w, const nyb_keras_layers *layers, nyb_keras_file *file,
                            const nyb_keras_choice *choice, nyb_err *err)
{
    nyb_status status = nyb_graph_open(&w->graph, layers, file, err);
    if (status != NYB_OK)
        return status;
    const size_t count = w->graph.layer_count * NYB_GRAPH_LINEARS;
    w->settings = nyb_alloc(count, sizeof(*w->settings));
    w->solved = nyb_alloc(w->graph.layer_count, sizeof(*w->solved));
    w->out->layers = nyb_alloc(count, sizeof(*w->out->layers));
    if (!w->settings || !w->solved || !w->out->layers)
        return nyb_no_memory(err, "layers", count, sizeof(*w->settings));
    w->watch = (nyb_graph_watch){.user = w, .see = see};
    return choose(w, choice, err);
}

static nyb_status load_samples(walk *w, const nyb_samples_params *samples, nyb_err *err)
{
    const size_t count = samples->path_count;
    nyb_status status = NYB_OK;
    nyb_array *const arrays = nyb_alloc(count, sizeof(*arrays));
    if (!arrays)
        return nyb_no_memory(err, "samples", count, sizeof(*arrays));
    for (size_t i = 0; i < count && status == NYB_OK; i++) {
        status = nyb_array_load(&arrays[i], samples->paths[i], err);
        if (status == NYB_OK && samples->counted && arrays[i].shape[0] > samples->count)
            arrays[i].shape[0] = samples->count;
    }
    if (status == NYB_OK) {
        w->out->samples = arrays[0].shape[0];
        status = nyb_graph_begin(&w->run, w->ctx, &w->graph, arrays, count, err);
    }
    for (size_t i = 0; i < count; i++)
        nyb_array_clear(&arrays[i]);
    nyb_free(arrays);
    return status;
}

nyb_status nyb_keras_solve(const nyb_context *ctx, nyb_keras_solution *out,
                           const nyb_keras_layers *layers, nyb_keras_file *file,
                           const nyb_samples_params *samples, const nyb_keras_choice *choice,
                           nyb_err *err)
{
    walk w = {.ctx = ctx, .out = out};
    *out = (nyb_keras_solution){0};
    if (samples->path_count == 0)
        return nyb_fail(
            err, NYB_E_ARG,
            "%s: gptq needs sample inputs: give --calib FILE.npy, one for each of the model's "
            "inputs",
            nyb_keras_path(file));
    if (samples->first_weight > 1)
        return nyb_fail(
            err, NYB_E_ARG,
            "%s: --first-weight is for windows of tokens, not for samples of a Keras model",
            nyb_keras_path(file));
    nyb_status status = open_walk(&w, layers, file, choice, err);
    if (status == NYB_OK)
        status = load_samples(&w, samples, err);
    if (status == NYB_OK)
        status = walk_calls(&w, err);
    nyb_graph_end(&w.run);
    nyb_graph_close(&w.graph);
    nyb_free(w.settings);
    nyb_free(w.solved);
    if (status != NYB_OK)
        nyb_keras_solution_clear(out);
    return status;
}

void nyb_keras_solution_clear(nyb_keras_solution *solution)
{
    for (size_t i = 0; i < solution->count; i++)
        nyb_qweight_clear(&solution->layers[i].q);
    nyb_free(solution->layers);
    *solution = (nyb_keras_solution){0};
}

const nyb_keras_solved *nyb_keras_solved_of(const nyb_keras_solution *solution,
                                            const nyb_keras_layer *layer)
{
    for (size_t i = 0; i < solution->count; i++) {
        if (solution->layers[i].layer == layer->first)
            return &solution->layers[i];
    }
    return NULL;
}
