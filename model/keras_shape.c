// Layers that move values or put several together: shapes, merging, pooling.
#include <math.h>
#include <string.h>

#include "model/keras_op.h"

// ---- Shapes ---------------------------------------------------------------------------------

static nyb_status copy_as(const nyb_graph_args *args, unsigned rank, const size_t *shape,
                          nyb_err *err)
{
    const nyb_status status =
        nyb_array_init(args->out, rank, shape, args->layer->source->scope, err);
    if (status == NYB_OK)
        memcpy(args->out->at, args->in[0]->at, nyb_array_count(args->out) * sizeof(float));
    return status;
}

static nyb_status check_last(const nyb_graph_opening *o, nyb_err *err)
{
    const char *const format = json_string_value(json_object_get(o->config, "data_format"));
    if (!format || strcmp(format, "channels_last") == 0)
        return NYB_OK;
    return nyb_graph_fail(o->layer->source, NYB_E_UNSUPPORTED, err,
                          "its data_format is '%s', and nybble takes 'channels_last' alone",
                          format);
}

static nyb_status run_flatten(const nyb_graph_args *args, nyb_err *err)
{
    const nyb_array *const in = args->in[0];
    size_t shape[2] = {in->shape[0], 1};
    for (unsigned i = 1; i < in->rank; i++)
        shape[1] *= in->shape[i];
    return copy_as(args, 2, shape, err);
}

// Of Reshape: 0 is what is left. Of Permute: the axes, from 1 on.
typedef struct targets {
    size_t at[NYB_MAX_RANK];
    unsigned count;
} targets;

static nyb_status read_targets(const nyb_graph_opening *o, const char *key, targets *out,
                               nyb_err *err)
{
    const json_t *const list = json_object_get(o->config, key);
    if (!json_is_array(list) || json_array_size(list) >= NYB_MAX_RANK)
        return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err,
                              "its '%s' is no list of at most %d numbers", key, NYB_MAX_RANK - 1);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *const item = json_array_get(list, i);
        const json_int_t value = json_is_null(item) ? -1 : json_integer_value(item);
        if ((!json_is_integer(item) && !json_is_null(item)) || value == 0 || value < -1)
            return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err,
                                  "entry %zu of its '%s' is neither -1 nor 1 or more", i, key);
        out->at[out->count++] = value < 0 ? 0 : (size_t) value;
    }
    return NYB_OK;
}

static nyb_status open_reshape(const nyb_graph_opening *o, nyb_err *err)
{
    targets *const t = nyb_graph_self(o, sizeof(*t), err);
    return t ? read_targets(o, "target_shape", t, err) : NYB_E_NOMEM;
}

static nyb_status run_reshape(const nyb_graph_args *args, nyb_err *err)
{
    const targets *const t = args->layer->self;
    const nyb_array *const in = args->in[0];
    size_t shape[NYB_MAX_RANK] = {in->shape[0]};
    size_t known = 1, left = 1, open = 0;
    bool fits = true;
    for (unsigned i = 1; i < in->rank; i++)
        left *= in->shape[i];
    for (unsigned i = 0; i < t->count && fits; i++) {
        shape[i + 1] = t->at[i];
        open += t->at[i] == 0;
        fits = t->at[i] == 0 || nyb_mul_size(known, t->at[i], &known);
    }
    if (!fits || open > 1 || (open == 0 && known != left) || (open == 1 && left % known != 0))
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "the %zu values of a sample do not fit its target_shape", left);
    for (unsigned i = 0; i < t->count; i++)
        shape[i + 1] = t->at[i] ? t->at[i] : left / known;
    return copy_as(args, t->count + 1, shape, err);
}

static nyb_status open_permute(const nyb_graph_opening *o, nyb_err *err)
{
    targets *const t = nyb_graph_self(o, sizeof(*t), err);
    nyb_status status = t ? read_targets(o, "dims", t, err) : NYB_E_NOMEM;
    unsigned seen = 0;
    for (unsigned i = 0; status == NYB_OK && i < t->count; i++)
        seen |= t->at[i] > 0 && t->at[i] <= t->count ? 1u << (t->at[i] - 1) : 0;
    if (status == NYB_OK && seen != (1u << t->count) - 1)
        status = nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err,
                                "its 'dims' are not each of 1 to %u", t->count);
    return status;
}

static nyb_status run_permute(const nyb_graph_args *args, nyb_err *err)
{
    const targets *const t = args->layer->self;
    unsigned order[NYB_MAX_RANK] = {0};
    if (args->in[0]->rank != t->count + 1)
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its input has %u axes and its 'dims' are %u", args->in[0]->rank,
                              t->count);
    for (unsigned i = 0; i < t->count; i++)
        order[i + 1] = (unsigned) t->at[i];
    const nyb_status status = nyb_graph_like(args, err);
    if (status == NYB_OK)
        nyb_array_permute(args->out, args->in[0], order);
    return status;
}

// ---- Merging --------------------------------------------------------------------------------

static void subtract(float *to, const float *with, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] -= with[i * step];
}

static void maximum(float *to, const float *with, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = with[i * step] > to[i] ? with[i * step] : to[i];
}

static void minimum(float *to, const float *with, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = with[i * step] < to[i] ? with[i * step] : to[i];
}

// The input with axes of 1 behind the samples' one, up to `rank`, as Keras' layers have it.
static nyb_array widened(const nyb_array *in, unsigned rank)
{
    nyb_array out = {.at = in->at, .rank = rank, .shape = {in->shape[0]}};
    const unsigned more = rank - in->rank;
    for (unsigned i = 0; i < more; i++)
        out.shape[i + 1] = 1;
    for (unsigned i = 1; i < in->rank; i++)
        out.shape[i + more] = in->shape[i];
    return out;
}

static nyb_status merged_shape(const nyb_graph_args *args, nyb_array *out, nyb_err *err)
{
    for (size_t i = 0; i < args->count; i++)
        out->rank = args->in[i]->rank > out->rank ? args->in[i]->rank : out->rank;
    for (unsigned a = 0; a < out->rank; a++) {
        out->shape[a] = 1;
        for (size_t i = 0; i < args->count; i++) {
            const size_t n = widened(args->in[i], out->rank).shape[a];
            if (n != 1 && out->shape[a] != 1 && out->shape[a] != n)
                return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                                      "axis %u of its inputs has both %zu and %zu values", a,
                                      out->shape[a], n);
            out->shape[a] = n != 1 ? n : out->shape[a];
        }
    }
    return NYB_OK;
}

static nyb_status merge(const nyb_graph_args *args, nyb_array_op *op, nyb_err *err)
{
    nyb_array *const out = args->out;
    nyb_array shape = {0};
    nyb_status status = merged_shape(args, &shape, err);
    if (status == NYB_OK)
        status = nyb_array_init(out, shape.rank, shape.shape, args->layer->source->scope, err);
    if (status != NYB_OK)
        return status;
    memset(out->at, 0, nyb_array_count(out) * sizeof(float));
    for (size_t i = 0; i < args->count; i++) {
        const nyb_array in = widened(args->in[i], out->rank);
        nyb_array_combine(out, &in, i == 0 ? nyb_array_add : op);
    }
    return NYB_OK;
}

static nyb_status run_add(const nyb_graph_args *args, nyb_err *err)
{
    return merge(args, nyb_array_add, err);
}

static nyb_status run_multiply(const nyb_graph_args *args, nyb_err *err)
{
    return merge(args, nyb_array_multiply, err);
}

static nyb_status run_maximum(const nyb_graph_args *args, nyb_err *err)
{
    return merge(args, maximum, err);
}

static nyb_status run_minimum(const nyb_graph_args *args, nyb_err *err)
{
    return merge(args, minimum, err);
}

static nyb_status run_subtract(const nyb_graph_args *args, nyb_err *err)
{
    if (args->count != 2)
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err, "it has %zu inputs, want 2",
                              args->count);
    return merge(args, subtract, err);
}

static nyb_status run_average(const nyb_graph_args *args, nyb_err *err)
{
    const nyb_status status = merge(args, nyb_array_add, err);
    for (size_t i = 0; status == NYB_OK && i < nyb_array_count(args->out); i++)
        args->out->at[i] /= (float) args->count;
    return status;
}

typedef struct concatenate {
    int axis;
} concatenate;

static nyb_status open_concatenate(const nyb_graph_opening *o, nyb_err *err)
{
    concatenate *const c = nyb_graph_self(o, sizeof(*c), err);
    if (!c)
        return NYB_E_NOMEM;
    c->axis = -1;
    return nyb_graph_integer(o, "axis", &c->axis, err);
}

static nyb_status concatenated_shape(const nyb_graph_args *args, unsigned axis, size_t *shape,
                                     nyb_err *err)
{
    const nyb_array *const first = args->in[0];
    for (size_t i = 0; i < args->count; i++) {
        const nyb_array *const in = args->in[i];
        bool same = in->rank == first->rank;
        for (unsigned a = 0; same && a < in->rank; a++)
            same = a == axis || in->shape[a] == first->shape[a];
        if (!same || !nyb_add_size(shape[axis], in->shape[axis], &shape[axis]))
            return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                                  "input %zu does not have the other axes of the first", i);
    }
    return NYB_OK;
}

static nyb_status run_concatenate(const nyb_graph_args *args, nyb_err *err)
{
    const concatenate *const c = args->layer->self;
    const nyb_array *const first = args->in[0];
    const int axis = c->axis < 0 ? c->axis + (int) first->rank : c->axis;
    size_t shape[NYB_MAX_RANK] = {0}, outer = 1, inner = 1, at = 0;
    if (axis < 1 || axis >= (int) first->rank)
        return nyb_graph_fail(args->layer->source, NYB_E_UNSUPPORTED, err,
                              "its axis is %d, want 1 to %u", c->axis, first->rank - 1);
    memcpy(shape, first->shape, sizeof(shape));
    shape[axis] = 0;
    nyb_status status = concatenated_shape(args, (unsigned) axis, shape, err);
    if (status == NYB_OK)
        status = nyb_array_init(args->out, first->rank, shape, args->layer->source->scope, err);
    if (status != NYB_OK)
        return status;
    for (int a = 0; a < axis; a++)
        outer *= shape[a];
    for (unsigned a = (unsigned) axis + 1; a < first->rank; a++)
        inner *= shape[a];
    for (size_t r = 0; r < outer; r++) {
        for (size_t i = 0; i < args->count; i++) {
            const size_t n = args->in[i]->shape[axis] * inner;
            memcpy(args->out->at + at, args->in[i]->at + r * n, n * sizeof(float));
            at += n;
        }
    }
    return NYB_OK;
}

// ---- Pooling --------------------------------------------------------------------------------

typedef struct pooling {
    bool keepdims;
} pooling;

static nyb_status open_pooling(const nyb_graph_opening *o, nyb_err *err)
{
    pooling *const p = nyb_graph_self(o, sizeof(*p), err);
    const nyb_status status = p ? check_last(o, err) : NYB_E_NOMEM;
    return status == NYB_OK ? nyb_graph_bool(o, "keepdims", &p->keepdims, err) : status;
}

static float mean_of(const float *x, size_t n, size_t step)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double) x[i * step];
    return (float) (sum / (double) n);
}

static float largest_of(const float *x, size_t n, size_t step)
{
    float most = x[0];
    for (size_t i = 1; i < n; i++)
        most = x[i * step] > most ? x[i * step] : most;
    return most;
}

static nyb_status pool(const nyb_graph_args *args, float (*reduce)(const float *, size_t, size_t),
                       nyb_err *err)
{
    const pooling *const p = args->layer->self;
    const nyb_array *const in = args->in[0];
    if (in->rank != 3 || in->shape[1] == 0)
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its input has %u axes, want samples, steps (at least one), and "
                              "channels",
                              in->rank);
    const size_t steps = in->shape[1], width = in->shape[2];
    const size_t flat[2] = {in->shape[0], width}, kept[3] = {in->shape[0], 1, width};
    const nyb_status status = nyb_array_init(
        args->out, p->keepdims ? 3 : 2, p->keepdims ? kept : flat, args->layer->source->scope, err);
    for (size_t i = 0; status == NYB_OK && i < in->shape[0] * width; i++)
        args->out->at[i] = reduce(in->at + i / width * steps * width + i % width, steps, width);
    return status;
}

static nyb_status run_mean_pool(const nyb_graph_args *args, nyb_err *err)
{
    return pool(args, mean_of, err);
}

static nyb_status run_max_pool(const nyb_graph_args *args, nyb_err *err)
{
    return pool(args, largest_of, err);
}

static const char *const one[] = {"inputs", NULL};

const nyb_graph_op nyb_graph_op_flatten = {
    .class_name = "Flatten", .slots = one, .required = 1, .open = check_last, .run = run_flatten};
const nyb_graph_op nyb_graph_op_reshape = {
    .class_name = "Reshape", .slots = one, .required = 1, .open = open_reshape, .run = run_reshape};
const nyb_graph_op nyb_graph_op_permute = {
    .class_name = "Permute", .slots = one, .required = 1, .open = open_permute, .run = run_permute};
const nyb_graph_op nyb_graph_op_concatenate = {
    .class_name = "Concatenate", .required = 1, .open = open_concatenate, .run = run_concatenate};
const nyb_graph_op nyb_graph_op_add = {.class_name = "Add", .required = 1, .run = run_add};
const nyb_graph_op nyb_graph_op_subtract = {
    .class_name = "Subtract", .required = 2, .run = run_subtract};
const nyb_graph_op nyb_graph_op_multiply = {
    .class_name = "Multiply", .required = 1, .run = run_multiply};
const nyb_graph_op nyb_graph_op_average = {
    .class_name = "Average", .required = 1, .run = run_average};
const nyb_graph_op nyb_graph_op_maximum = {
    .class_name = "Maximum", .required = 1, .run = run_maximum};
const nyb_graph_op nyb_graph_op_minimum = {
    .class_name = "Minimum", .required = 1, .run = run_minimum};
const nyb_graph_op nyb_graph_op_mean_pool = {.class_name = "GlobalAveragePooling1D",
                                             .slots = one,
                                             .required = 1,
                                             .open = open_pooling,
                                             .run = run_mean_pool};
const nyb_graph_op nyb_graph_op_max_pool = {.class_name = "GlobalMaxPooling1D",
                                            .slots = one,
                                            .required = 1,
                                            .open = open_pooling,
                                            .run = run_max_pool};
