// Keras' activation functions, and the layers that are nothing else.
#include <math.h>
#include <string.h>

#include "core/threads.h"
#include "model/keras_op.h"

// Each in double, so that the mathematical functions of different libraries make no difference.
#define EACH(name, expression)                                                                     \
    static double name(const double *p, double v)                                                  \
    {                                                                                              \
        (void) p;                                                                                  \
        return expression;                                                                         \
    }

static double clip(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

static double sigmoid_of(double v)
{
    return 1.0 / (1.0 + exp(-v));
}

static double softplus_of(double v)
{
    return (v > 0.0 ? v : 0.0) + log1p(exp(-fabs(v)));
}

// Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", arXiv:1706.02515.
static double selu_of(double v)
{
    return 1.0507009873554805 * (v > 0.0 ? v : 1.6732632423543772 * expm1(v));
}

// p: negative_slope, max_value, threshold. Between the threshold and 0 a slope bends at the
// threshold, as Keras has it.
static double full_relu(const double *p, double v)
{
    const double below = v < p[2] ? p[0] * (v - p[2]) : 0.0;
    const double above = v > p[2] || (p[2] == 0.0 && v >= 0.0) ? v : 0.0;
    return (above > p[1] ? p[1] : above) + below;
}

EACH(relu, v < 0.0 ? 0.0 : v)
EACH(leaky, v < 0.0 ? p[0] * v : v)
EACH(relu6, clip(v, 0.0, 6.0))
EACH(elu, v > 0.0 ? v : p[0] * expm1(v))
EACH(celu, v > 0.0 ? v : expm1(v))
EACH(selu, selu_of(v))
EACH(softplus, softplus_of(v))
EACH(softsign, v / (1.0 + fabs(v)))
EACH(squareplus, 0.5 * (v + sqrt(v * v + 4.0)))
EACH(soft_shrink, v > 0.5 ? v - 0.5 : v < -0.5 ? v + 0.5 : 0.0)
EACH(hard_shrink, fabs(v) > 0.5 ? v : 0.0)
EACH(sparse_plus, v <= -1.0 ? 0.0 : v < 1.0 ? 0.25 * (v + 1.0) * (v + 1.0) : v)
EACH(sparse_sigmoid, clip(0.5 * (v + 1.0), 0.0, 1.0))
EACH(silu, v *sigmoid_of(v))
EACH(gelu, 0.5 * v * (1.0 + erf(v * 0.70710678118654752440)))
EACH(hyperbolic_tangent, tanh(v))
EACH(tanh_shrink, v - tanh(v))
EACH(hard_tanh, clip(v, -1.0, 1.0))
EACH(sigmoid, sigmoid_of(v))
EACH(hard_sigmoid, clip(v + 3.0, 0.0, 6.0) / 6.0)
EACH(hard_silu, v *clip(v + 3.0, 0.0, 6.0) / 6.0)
EACH(log_sigmoid, -softplus_of(-v))
EACH(exponential, exp(v))
EACH(mish, v *tanh(softplus_of(v)))

static float most_of(const float *x, size_t n)
{
    float top = x[0];
    for (size_t i = 1; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

static void softmax(float *x, size_t n)
{
    const float top = most_of(x, n);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double e = exp((double) x[i] - (double) top);
        x[i] = (float) e;
        sum += e;
    }
    for (size_t i = 0; i < n; i++)
        x[i] = (float) ((double) x[i] / sum);
}

static void log_softmax(float *x, size_t n)
{
    const double top = (double) most_of(x, n);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double) x[i] - top);
    const double log_sum = top + log(sum);
    for (size_t i = 0; i < n; i++)
        x[i] = (float) ((double) x[i] - log_sum);
}

static const struct {
    const char *name;
    nyb_keras_function function;
} functions[] = {
    {"linear", {0}},
    {"relu", {.each = relu}},
    {"leaky_relu", {.each = leaky, .p = {0.2}}},
    {"relu6", {.each = relu6}},
    {"elu", {.each = elu, .p = {1.0}}},
    {"celu", {.each = celu}},
    {"selu", {.each = selu}},
    {"softplus", {.each = softplus}},
    {"softsign", {.each = softsign}},
    {"squareplus", {.each = squareplus}},
    {"soft_shrink", {.each = soft_shrink}},
    {"hard_shrink", {.each = hard_shrink}},
    {"sparse_plus", {.each = sparse_plus}},
    {"sparse_sigmoid", {.each = sparse_sigmoid}},
    {"silu", {.each = silu}},
    {"swish", {.each = silu}},
    {"gelu", {.each = gelu}},
    {"tanh", {.each = hyperbolic_tangent}},
    {"tanh_shrink", {.each = tanh_shrink}},
    {"hard_tanh", {.each = hard_tanh}},
    {"sigmoid", {.each = sigmoid}},
    {"hard_sigmoid", {.each = hard_sigmoid}},
    {"hard_silu", {.each = hard_silu}},
    {"hard_swish", {.each = hard_silu}},
    {"log_sigmoid", {.each = log_sigmoid}},
    {"exponential", {.each = exponential}},
    {"mish", {.each = mish}},
    {"softmax", {.row = softmax}},
    {"log_softmax", {.row = log_softmax}},
};

bool nyb_keras_function_named(nyb_keras_function *out, const char *name)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (strcmp(functions[i].name, name) == 0) {
            *out = functions[i].function;
            return true;
        }
    }
    return false;
}

nyb_status nyb_keras_function_read(const nyb_graph_opening *o, const char *key,
                                   nyb_keras_function *out, nyb_err *err)
{
    const json_t *value = json_object_get(o->config, key);
    *out = (nyb_keras_function){0};
    if (!value || json_is_null(value))
        return NYB_OK;
    if (json_is_object(value)) // {"class_name": "function", "config": NAME, ...}
        value = json_object_get(value, "config");
    const char *const name = json_string_value(value);
    if (name && nyb_keras_function_named(out, name))
        return NYB_OK;
    return nyb_graph_fail(o->layer->source, NYB_E_UNSUPPORTED, err,
                          "its %s '%s' is not one that nybble knows", key, name ? name : "?");
}

// ---- Application ----------------------------------------------------------------------------

enum { PIECE = 1 << 14 }; // values of a task

typedef struct application {
    const nyb_keras_function *f;
    float *x;
    size_t count, width; // width: of a row, for functions of rows
    size_t rows;         // of a task, likewise
} application;

static void apply_piece(void *arg, size_t index, unsigned worker)
{
    const application *const a = arg;
    (void) worker;
    const size_t end = a->count - index * PIECE < PIECE ? a->count : (index + 1) * PIECE;
    for (size_t i = index * PIECE; i < end; i++)
        a->x[i] = (float) a->f->each(a->f->p, (double) a->x[i]);
}

static void apply_rows(void *arg, size_t index, unsigned worker)
{
    const application *const a = arg;
    (void) worker;
    const size_t all = a->count / a->width, first = index * a->rows;
    for (size_t r = first; r < all && r < first + a->rows; r++)
        a->f->row(a->x + r * a->width, a->width);
}

void nyb_keras_function_apply(const nyb_context *ctx, const nyb_keras_function *f,
                              const nyb_array *x)
{
    application a = {
        .f = f, .x = x->at, .count = nyb_array_count(x), .width = x->shape[x->rank - 1]};
    if (a.count == 0 || (!f->each && !f->row))
        return;
    a.rows = a.width < PIECE ? PIECE / a.width : 1;
    if (f->each)
        nyb_parallel(ctx, (a.count + PIECE - 1) / PIECE, apply_piece, &a);
    else
        nyb_parallel(ctx, (a.count / a.width + a.rows - 1) / a.rows, apply_rows, &a);
}

// ---- Layers ---------------------------------------------------------------------------------

static nyb_status run_function(const nyb_graph_args *args, nyb_err *err)
{
    const nyb_status status = nyb_graph_like(args, err);
    if (status != NYB_OK)
        return status;
    memcpy(args->out->at, args->in[0]->at, nyb_array_count(args->out) * sizeof(float));
    nyb_keras_function_apply(args->run->ctx, args->layer->self, args->out);
    return NYB_OK;
}

static nyb_status open_activation(const nyb_graph_opening *o, nyb_err *err)
{
    nyb_keras_function *const f = nyb_graph_self(o, sizeof(*f), err);
    return f ? nyb_keras_function_read(o, "activation", f, err) : NYB_E_NOMEM;
}

static nyb_status open_relu(const nyb_graph_opening *o, nyb_err *err)
{
    nyb_keras_function *const f = nyb_graph_self(o, sizeof(*f), err);
    if (!f)
        return NYB_E_NOMEM;
    *f = (nyb_keras_function){.each = full_relu, .p = {0.0, (double) INFINITY, 0.0}};
    nyb_status status = nyb_graph_real(o, "negative_slope", &f->p[0], err);
    if (status == NYB_OK)
        status = nyb_graph_real(o, "max_value", &f->p[1], err);
    return status == NYB_OK ? nyb_graph_real(o, "threshold", &f->p[2], err) : status;
}

static nyb_status open_sloped(const nyb_graph_opening *o, const char *key,
                              nyb_keras_function standard, nyb_err *err)
{
    nyb_keras_function *const f = nyb_graph_self(o, sizeof(*f), err);
    if (!f)
        return NYB_E_NOMEM;
    *f = standard;
    return nyb_graph_real(o, key, &f->p[0], err);
}

static nyb_status open_leaky(const nyb_graph_opening *o, nyb_err *err)
{
    return open_sloped(o, "negative_slope", (nyb_keras_function){.each = leaky, .p = {0.3}}, err);
}

static nyb_status open_elu(const nyb_graph_opening *o, nyb_err *err)
{
    return open_sloped(o, "alpha", (nyb_keras_function){.each = elu, .p = {1.0}}, err);
}

// The axis of a softmax, which has to be the last one.
typedef struct softmax_layer {
    nyb_keras_function function;
    int axis;
} softmax_layer;

static nyb_status open_softmax(const nyb_graph_opening *o, nyb_err *err)
{
    softmax_layer *const s = nyb_graph_self(o, sizeof(*s), err);
    if (!s)
        return NYB_E_NOMEM;
    *s = (softmax_layer){.function = {.row = softmax}, .axis = -1};
    const json_t *const axis = json_object_get(o->config, "axis");
    if (json_is_array(axis) && json_array_size(axis) == 1 &&
        json_is_integer(json_array_get(axis, 0))) {
        const json_int_t only = json_integer_value(json_array_get(axis, 0));
        s->axis = only >= -NYB_MAX_RANK && only < NYB_MAX_RANK ? (int) only : NYB_MAX_RANK;
        return NYB_OK;
    }
    return nyb_graph_integer(o, "axis", &s->axis, err);
}

static nyb_status run_softmax(const nyb_graph_args *args, nyb_err *err)
{
    const softmax_layer *const s = args->layer->self;
    const int last = (int) args->in[0]->rank - 1;
    if (s->axis != -1 && s->axis != last)
        return nyb_graph_fail(args->layer->source, NYB_E_UNSUPPORTED, err,
                              "its axis is %d, and nybble takes the last one (%d) alone", s->axis,
                              last);
    return run_function(args, err);
}

typedef struct prelu {
    nyb_array alpha;
} prelu;

static nyb_status open_prelu(const nyb_graph_opening *o, nyb_err *err)
{
    prelu *const p = nyb_graph_self(o, sizeof(*p), err);
    return p ? nyb_graph_variable(o->graph, o->layer->source, 0, &p->alpha, err) : NYB_E_NOMEM;
}

// He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", arXiv:1502.01852, equation 1.
static void bend(float *to, const float *with, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = to[i] < 0.0f ? to[i] * with[i * step] : to[i];
}

static nyb_status run_prelu(const nyb_graph_args *args, nyb_err *err)
{
    const prelu *const p = args->layer->self;
    if (!nyb_array_fits(args->in[0], &p->alpha))
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its slopes do not fit its input");
    const nyb_status status = nyb_graph_like(args, err);
    if (status != NYB_OK)
        return status;
    memcpy(args->out->at, args->in[0]->at, nyb_array_count(args->out) * sizeof(float));
    nyb_array_combine(args->out, &p->alpha, bend);
    return NYB_OK;
}

static const char *const one[] = {"inputs", NULL};

const nyb_graph_op nyb_graph_op_activation = {.class_name = "Activation",
                                              .slots = one,
                                              .required = 1,
                                              .open = open_activation,
                                              .run = run_function};
const nyb_graph_op nyb_graph_op_relu = {
    .class_name = "ReLU", .slots = one, .required = 1, .open = open_relu, .run = run_function};
const nyb_graph_op nyb_graph_op_leaky_relu = {.class_name = "LeakyReLU",
                                              .slots = one,
                                              .required = 1,
                                              .open = open_leaky,
                                              .run = run_function};
const nyb_graph_op nyb_graph_op_elu = {
    .class_name = "ELU", .slots = one, .required = 1, .open = open_elu, .run = run_function};
const nyb_graph_op nyb_graph_op_prelu = {
    .class_name = "PReLU", .slots = one, .required = 1, .open = open_prelu, .run = run_prelu};
const nyb_graph_op nyb_graph_op_softmax = {
    .class_name = "Softmax", .slots = one, .required = 1, .open = open_softmax, .run = run_softmax};
