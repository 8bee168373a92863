// Layers that look rows up or multiply the last axis by a matrix.
#include <math.h>
#include <string.h>

#include "kernels/gemm.h"
#include "model/keras_op.h"

// ---- Products -------------------------------------------------------------------------------

enum { ROWS_AT_ONCE = 4096 }; // that are packed for a product

static nyb_status multiply_rows(const nyb_graph_run *run, const nyb_graph_linear *linear, nyb_mat x,
                                nyb_mat out, nyb_err *err)
{
    const nyb_gemm *const gemm = nyb_gemm_get(NYB_COMPUTE_F32);
    const size_t most = x.rows < ROWS_AT_ONCE ? x.rows : (size_t) ROWS_AT_ONCE;
    const size_t words = nyb_gemm_run_words(gemm, most, linear->out, linear->in);
    uint32_t *const scratch = nyb_alloc_raw(words, sizeof(*scratch));
    if (!scratch)
        return nyb_no_memory(err, linear->layer->scope, words, sizeof(*scratch));
    const nyb_operand kernel =
        nyb_operand_turned(nyb_mat_of(linear->kernel, linear->in, linear->out));
    for (size_t row = 0; row < x.rows; row += most) {
        const size_t end = x.rows - row < most ? x.rows : row + most;
        const nyb_operand some = nyb_operand_of(nyb_block(x, row, end, 0, x.cols));
        nyb_gemm_run(run->ctx, gemm, nyb_block(out, row, end, 0, out.cols), &some, &kernel, 1.0f,
                     false, scratch);
    }
    nyb_free(scratch);
    return NYB_OK;
}

nyb_status nyb_graph_multiply(const nyb_graph_run *run, const nyb_graph_linear *linear, nyb_mat x,
                              nyb_mat out, nyb_err *err)
{
    if (run->watch) {
        const nyb_status status = run->watch->see(run->watch->user, linear, x, err);
        if (status != NYB_OK)
            return status;
    }
    if (x.rows == 0 || linear->out == 0)
        return NYB_OK;
    return multiply_rows(run, linear, x, out, err);
}

// ---- Dense ----------------------------------------------------------------------------------

typedef struct dense {
    nyb_graph_linear *linear;
    nyb_array bias; // `at` NULL: none
    nyb_keras_function activation;
} dense;

// The file's kernel becomes the linear's, and the bias behind it is read.
static nyb_status open_matrix(const nyb_graph_opening *o, dense *d, nyb_err *err)
{
    const nyb_keras_layer *const source = o->layer->source;
    bool biased = true;
    nyb_array kernel;
    nyb_status status = nyb_graph_bool(o, "use_bias", &biased, err);
    if (status == NYB_OK)
        status = nyb_graph_variable(o->graph, source, 0, &kernel, err);
    if (status != NYB_OK)
        return status;
    if (kernel.rank != 2)
        return nyb_graph_fail(source, NYB_E_FORMAT, err, "its kernel has %u axes, want 2",
                              kernel.rank);
    status = nyb_graph_add_linear(o, source, &kernel, kernel.shape[0], 0, &d->linear, err);
    if (status == NYB_OK && biased) {
        d->bias = (nyb_array){.rank = 1, .shape = {kernel.shape[1]}};
        status = nyb_graph_vector(o->graph, source, 1, kernel.shape[1], &d->bias.at, err);
    }
    return status;
}

static nyb_status open_dense(const nyb_graph_opening *o, nyb_err *err)
{
    dense *const d = nyb_graph_self(o, sizeof(*d), err);
    const nyb_status status =
        d ? nyb_keras_function_read(o, "activation", &d->activation, err) : NYB_E_NOMEM;
    return status == NYB_OK ? open_matrix(o, d, err) : status;
}

static nyb_status run_dense(const nyb_graph_args *args, nyb_err *err)
{
    const dense *const d = args->layer->self;
    const nyb_array *const in = args->in[0];
    const unsigned last = in->rank - 1;
    size_t shape[NYB_MAX_RANK], rows = 1;
    if (in->rank < 2 || in->shape[last] != d->linear->in)
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its input ends in an axis of %zu, its kernel takes %zu",
                              in->shape[last], d->linear->in);
    memcpy(shape, in->shape, sizeof(shape));
    shape[last] = d->linear->out;
    for (unsigned i = 0; i < last; i++)
        rows *= in->shape[i];
    nyb_status status = nyb_array_init(args->out, in->rank, shape, args->layer->source->scope, err);
    if (status == NYB_OK)
        status = nyb_graph_multiply(args->run, d->linear, nyb_mat_of(in->at, rows, d->linear->in),
                                    nyb_mat_of(args->out->at, rows, d->linear->out), err);
    if (status != NYB_OK)
        return status;
    if (d->bias.at)
        nyb_array_combine(args->out, &d->bias, nyb_array_add);
    nyb_keras_function_apply(args->run->ctx, &d->activation, args->out);
    return NYB_OK;
}

// ---- EinsumDense ----------------------------------------------------------------------------

typedef struct einsum_layer {
    nyb_einsum *einsum;
    nyb_keras_function activation;
} einsum_layer;

static nyb_status open_einsum(const nyb_graph_opening *o, nyb_err *err)
{
    einsum_layer *const e = nyb_graph_self(o, sizeof(*e), err);
    const char *equation = NULL;
    nyb_status status =
        e ? nyb_json_text(o->config, "equation", &equation, o->layer->source->scope, err)
          : NYB_E_NOMEM;
    if (status != NYB_OK)
        return status;
    if (!equation)
        return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err, "it has no equation");
    const char *const axes = json_string_value(json_object_get(o->config, "bias_axes"));
    status = nyb_keras_function_read(o, "activation", &e->activation, err);
    if (status == NYB_OK)
        status = nyb_einsum_open(&e->einsum, o, o->layer->source, equation, axes && *axes, 0, err);
    return status;
}

static nyb_status run_einsum(const nyb_graph_args *args, nyb_err *err)
{
    const einsum_layer *const e = args->layer->self;
    const nyb_status status = nyb_einsum_run(args->run, e->einsum, args->in[0], args->out, err);
    if (status == NYB_OK)
        nyb_keras_function_apply(args->run->ctx, &e->activation, args->out);
    return status;
}

// ---- Embeddings -----------------------------------------------------------------------------

typedef struct embedding {
    nyb_array rows;              // [ids, width]
    nyb_array reverse;           // [width, ids] of an untied reversible one
    nyb_graph_linear projection; // of a reversible one, out of its reach for quantisation
    double cap;                  // of its scores; 0: none
} embedding;

static nyb_status open_rows(const nyb_graph_opening *o, embedding *e, nyb_err *err)
{
    const nyb_keras_layer *const source = o->layer->source;
    bool masks = false;
    nyb_status status = nyb_graph_bool(o, "mask_zero", &masks, err);
    if (status == NYB_OK && masks)
        return nyb_graph_fail(source, NYB_E_UNSUPPORTED, err,
                              "it makes masks (mask_zero), which nybble does not follow");
    if (status == NYB_OK)
        status = nyb_graph_variable(o->graph, source, 0, &e->rows, err);
    if (status == NYB_OK && e->rows.rank != 2)
        status = nyb_graph_fail(source, NYB_E_FORMAT, err, "its table has %u axes, want 2",
                                e->rows.rank);
    return status;
}

static nyb_status open_embedding(const nyb_graph_opening *o, nyb_err *err)
{
    embedding *const e = nyb_graph_self(o, sizeof(*e), err);
    return e ? open_rows(o, e, err) : NYB_E_NOMEM;
}

static nyb_status run_embedding(const nyb_graph_args *args, nyb_err *err)
{
    const embedding *const e = args->layer->self;
    const nyb_array *const in = args->in[0];
    const size_t width = e->rows.shape[1], count = nyb_array_count(in);
    size_t shape[NYB_MAX_RANK];
    if (in->rank == NYB_MAX_RANK)
        return nyb_graph_fail(args->layer->source, NYB_E_UNSUPPORTED, err,
                              "its input has %u axes already", in->rank);
    memcpy(shape, in->shape, sizeof(shape));
    shape[in->rank] = width;
    const nyb_status status =
        nyb_array_init(args->out, in->rank + 1, shape, args->layer->source->scope, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        const double id = trunc((double) in->at[i]); // Keras casts to int32
        if (!(id >= 0.0 && id < (double) e->rows.shape[0]))
            return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                                  "its input has the id %g at %zu, and it has %zu rows", id, i,
                                  e->rows.shape[0]);
        memcpy(args->out->at + i * width, e->rows.at + (size_t) id * width, width * sizeof(float));
    }
    return NYB_OK;
}

// Scores are products with the table, [ids, width], turned, or with a matrix of its own.
static nyb_status open_reversible(const nyb_graph_opening *o, nyb_err *err)
{
    embedding *const e = nyb_graph_self(o, sizeof(*e), err);
    bool tied = true;
    nyb_status status = e ? open_rows(o, e, err) : NYB_E_NOMEM;
    if (status == NYB_OK)
        status = nyb_graph_bool(o, "tie_weights", &tied, err);
    if (status == NYB_OK)
        status = nyb_graph_real(o, "logit_soft_cap", &e->cap, err);
    if (status != NYB_OK)
        return status;
    const size_t ids = e->rows.shape[0], width = e->rows.shape[1];
    e->reverse = (nyb_array){.rank = 2, .shape = {width, ids}};
    if (tied) {
        const nyb_mat m = nyb_arena_mat(&o->graph->arena, width, ids);
        const unsigned turned[2] = {1, 0};
        e->reverse.at = m.at;
        if (!m.at)
            return nyb_no_memory(err, o->layer->source->scope, width, ids * sizeof(float));
        nyb_array_permute(&e->reverse, &e->rows, turned);
    } else {
        status = nyb_graph_vector(o->graph, o->layer->source, 1, width * ids, &e->reverse.at, err);
    }
    e->projection = (nyb_graph_linear){
        .layer = o->layer->source, .in = width, .out = ids, .kernel = e->reverse.at};
    return status;
}

static nyb_status run_scores(const nyb_graph_args *args, nyb_err *err)
{
    const embedding *const e = args->layer->self;
    const nyb_array *const in = args->in[0];
    const unsigned last = in->rank - 1;
    size_t shape[NYB_MAX_RANK], rows = 1;
    if (in->shape[last] != e->rows.shape[1])
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its input ends in an axis of %zu, its table is %zu wide",
                              in->shape[last], e->rows.shape[1]);
    memcpy(shape, in->shape, sizeof(shape));
    shape[last] = e->rows.shape[0];
    for (unsigned i = 0; i < last; i++)
        rows *= in->shape[i];
    nyb_status status = nyb_array_init(args->out, in->rank, shape, args->layer->source->scope, err);
    const nyb_graph_run unseen = {.ctx = args->run->ctx};
    if (status == NYB_OK)
        status =
            nyb_graph_multiply(&unseen, &e->projection, nyb_mat_of(in->at, rows, e->rows.shape[1]),
                               nyb_mat_of(args->out->at, rows, e->rows.shape[0]), err);
    for (size_t i = 0; status == NYB_OK && e->cap > 0.0 && i < nyb_array_count(args->out); i++)
        args->out->at[i] = (float) (tanh((double) args->out->at[i] / e->cap) * e->cap);
    return status;
}

static nyb_status run_reversible(const nyb_graph_args *args, nyb_err *err)
{
    return args->options->reverse ? run_scores(args, err) : run_embedding(args, err);
}

static const char *const one[] = {"inputs", NULL};

const nyb_graph_op nyb_graph_op_dense = {
    .class_name = "Dense", .slots = one, .required = 1, .open = open_dense, .run = run_dense};
const nyb_graph_op nyb_graph_op_einsum = {.class_name = "EinsumDense",
                                          .slots = one,
                                          .required = 1,
                                          .open = open_einsum,
                                          .run = run_einsum};
const nyb_graph_op nyb_graph_op_embedding = {.class_name = "Embedding",
                                             .slots = one,
                                             .required = 1,
                                             .open = open_embedding,
                                             .run = run_embedding};
const nyb_graph_op nyb_graph_op_reversible = {.class_name = "ReversibleEmbedding",
                                              .slots = one,
                                              .required = 1,
                                              .open = open_reversible,
                                              .run = run_reversible};
