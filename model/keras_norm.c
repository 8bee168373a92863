// Norms over the last axes of a value.
#include <math.h>

#include "model/keras_op.h"

typedef struct norm {
    int axes[NYB_MAX_RANK]; // as configured; counted from the end when negative
    unsigned count;
    double epsilon;
    nyb_array gain, bias; // `at` NULL: none
} norm;

static nyb_status read_axes(const nyb_graph_opening *o, norm *n, nyb_err *err)
{
    const json_t *const value = json_object_get(o->config, "axis");
    n->count = 1;
    n->axes[0] = -1;
    if (!json_is_array(value))
        return nyb_graph_integer(o, "axis", &n->axes[0], err);
    n->count = 0;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *const item = json_array_get(value, i);
        const json_int_t axis = json_integer_value(item);
        if (!json_is_integer(item) || n->count == NYB_MAX_RANK || axis < -NYB_MAX_RANK ||
            axis >= NYB_MAX_RANK)
            return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err,
                                  "its 'axis' is no list of axes");
        n->axes[n->count++] = (int) axis;
    }
    return NYB_OK;
}

static nyb_status open_norm(const nyb_graph_opening *o, bool centered, double epsilon, nyb_err *err)
{
    norm *const n = nyb_graph_self(o, sizeof(*n), err);
    bool scale = true, center = centered, squared = false;
    size_t index = 0;
    if (!n)
        return NYB_E_NOMEM;
    n->epsilon = epsilon;
    nyb_status status = read_axes(o, n, err);
    if (status == NYB_OK)
        status = nyb_graph_real(o, "epsilon", &n->epsilon, err);
    if (status == NYB_OK && centered)
        status = nyb_graph_bool(o, "scale", &scale, err);
    if (status == NYB_OK && centered)
        status = nyb_graph_bool(o, "center", &center, err);
    if (status == NYB_OK)
        status = nyb_graph_bool(o, "rms_scaling", &squared, err);
    if (status == NYB_OK && squared)
        status = nyb_graph_fail(o->layer->source, NYB_E_UNSUPPORTED, err,
                                "it has rms_scaling, which Keras has given up");
    if (status == NYB_OK && scale)
        status = nyb_graph_variable(o->graph, o->layer->source, index++, &n->gain, err);
    if (status == NYB_OK && center)
        status = nyb_graph_variable(o->graph, o->layer->source, index, &n->bias, err);
    return status;
}

static nyb_status open_layer_norm(const nyb_graph_opening *o, nyb_err *err)
{
    return open_norm(o, true, 1e-3, err);
}

static nyb_status open_rms_norm(const nyb_graph_opening *o, nyb_err *err)
{
    return open_norm(o, false, 1e-6, err);
}

// Whether the configured axes are the last ones, in order.
static bool are_last(const norm *n, unsigned rank)
{
    for (unsigned i = 0; i < n->count; i++) {
        const int axis = n->axes[i] < 0 ? n->axes[i] + (int) rank : n->axes[i];
        if (axis < 1 || axis != (int) (rank - n->count + i))
            return false;
    }
    return n->count > 0;
}

// y = (x - mean) / sqrt(variance + epsilon), or without the mean.
static void normalize(float *y, const float *x, size_t n, double epsilon, bool centered)
{
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; centered && i < n; i++)
        sum += (double) x[i];
    const double mean = sum / (double) n;
    for (size_t i = 0; i < n; i++)
        squares += ((double) x[i] - mean) * ((double) x[i] - mean);
    const double inverse = 1.0 / sqrt(squares / (double) n + epsilon);
    for (size_t i = 0; i < n; i++)
        y[i] = (float) (((double) x[i] - mean) * inverse);
}

static nyb_status run_norm(const nyb_graph_args *args, bool centered, nyb_err *err)
{
    const norm *const n = args->layer->self;
    const nyb_array *const in = args->in[0];
    size_t width = 1;
    if (!are_last(n, in->rank))
        return nyb_graph_fail(args->layer->source, NYB_E_UNSUPPORTED, err,
                              "its axis is %d of an input with %u axes, and nybble takes the last "
                              "ones alone",
                              n->count ? n->axes[0] : 0, in->rank);
    if ((n->gain.at && !nyb_array_fits(in, &n->gain)) ||
        (n->bias.at && !nyb_array_fits(in, &n->bias)))
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its gains or biases do not fit its input");
    const nyb_status status = nyb_graph_like(args, err);
    if (status != NYB_OK)
        return status;
    for (unsigned i = in->rank - n->count; i < in->rank; i++)
        width *= in->shape[i];
    for (size_t i = 0; i < nyb_array_count(in); i += width)
        normalize(args->out->at + i, in->at + i, width, n->epsilon, centered);
    if (n->gain.at)
        nyb_array_combine(args->out, &n->gain, nyb_array_multiply);
    if (n->bias.at)
        nyb_array_combine(args->out, &n->bias, nyb_array_add);
    return NYB_OK;
}

static nyb_status run_layer_norm(const nyb_graph_args *args, nyb_err *err)
{
    return run_norm(args, true, err);
}

static nyb_status run_rms_norm(const nyb_graph_args *args, nyb_err *err)
{
    return run_norm(args, false, err);
}

static const char *const one[] = {"inputs", NULL};

const nyb_graph_op nyb_graph_op_layer_norm = {.class_name = "LayerNormalization",
                                              .slots = one,
                                              .required = 1,
                                              .open = open_layer_norm,
                                              .run = run_layer_norm};
const nyb_graph_op nyb_graph_op_rms_norm = {.class_name = "RMSNormalization",
                                            .slots = one,
                                            .required = 1,
                                            .open = open_rms_norm,
                                            .run = run_rms_norm};
