#include "model/norm.h"

#include <math.h>

#include "kernels/vector.h"

nyb_norm nyb_norm_of(const nyb_block_weights *weights, int vector)
{
    const nyb_model_config *const config = nyb_model_config_of(weights->model);
    return (nyb_norm){.kind = config->arch->norm,
                      .gain = weights->vectors[vector],
                      .bias = weights->vectors[NYB_VECTOR_BIASES + vector],
                      .eps = config->norm_eps};
}

// Ba, Kiros, Hinton, "Layer Normalization", arXiv:1607.06450, equation 4.
static void layer_norm(const nyb_norm *norm, float *y, const float *x, size_t n)
{
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double) x[i];
    const double mean = sum / (double) n;
    for (size_t i = 0; i < n; i++)
        squares += ((double) x[i] - mean) * ((double) x[i] - mean);
    const double inverse = 1.0 / sqrt(squares / (double) n + norm->eps);
    for (size_t i = 0; i < n; i++)
        y[i] = (float) (((double) x[i] - mean) * inverse);
    for (size_t i = 0; norm->gain && i < n; i++)
        y[i] = y[i] * norm->gain[i] + norm->bias[i];
}

void nyb_norm_row(const nyb_norm *norm, float *y, const float *x, size_t n)
{
    if (norm->kind == NYB_NORM_LAYER)
        layer_norm(norm, y, x, n);
    else
        nyb_vector_ops_get()->rms_norm(y, x, norm->gain, n, norm->eps);
}

void nyb_norm_unit(float *x, size_t n, double eps)
{
    double squares = 0.0;
    for (size_t i = 0; i < n; i++)
        squares += (double) x[i] * (double) x[i];
    const float inverse = (float) (1.0 / sqrt(squares / (double) n + eps));
    for (size_t i = 0; i < n; i++)
        x[i] *= inverse;
}
