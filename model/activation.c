#include "model/activation.h"

#include <math.h>
#include <string.h>

// Each in double, so that tanhf and erff of different libraries make no difference.
#define EACH(name, expression)                                                                     \
    static void name(float *x, size_t n)                                                           \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            const double v = (double) x[i];                                                        \
            x[i] = (float) (expression);                                                           \
        }                                                                                          \
    }

static double sigmoid_of(double v)
{
    return 1.0 / (1.0 + exp(-v));
}

static double softplus_of(double v)
{
    return v > 20.0 ? v : log1p(exp(v));
}

static double gelu_of(double v)
{
    return 0.5 * v * (1.0 + erf(v * 0.70710678118654752440));
}

static double tanh_gelu_of(double v)
{
    return 0.5 * v * (1.0 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v)));
}

static double clip(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

EACH(gelu, gelu_of(v))
EACH(gelu_10, clip(gelu_of(v), -10.0, 10.0))
EACH(gelu_tanh, tanh_gelu_of(v))
EACH(quick_gelu, v *sigmoid_of(1.702 * v))
EACH(silu, v *sigmoid_of(v))
EACH(sigmoid, sigmoid_of(v))
EACH(hyperbolic_tangent, tanh(v))
EACH(mish, v *tanh(softplus_of(v)))
EACH(hardswish, v *clip(v + 3.0, 0.0, 6.0) / 6.0)
EACH(laplace, 0.5 * (1.0 + erf((v - 0.707107) / (0.282095 * 1.41421356237309504880))))
EACH(square_root_softplus, sqrt(softplus_of(v)))
EACH(relu, v < 0.0 ? 0.0 : v)
EACH(relu_squared, v < 0.0 ? 0.0 : v * v)
EACH(relu6, clip(v, 0.0, 6.0))
EACH(leaky_relu, v < 0.0 ? 0.01 * v : v)

static void identity(float *x, size_t n)
{
    (void) x;
    (void) n;
}

static const nyb_activation activations[] = {
    {"silu", silu, true},
    {"swish", silu, true},
    {"gelu", gelu, false},
    {"gelu_python", gelu, false},
    {"gelu_10", gelu_10, false},
    {"gelu_new", gelu_tanh, false},
    {"gelu_fast", gelu_tanh, false},
    {"gelu_accurate", gelu_tanh, false},
    {"gelu_pytorch_tanh", gelu_tanh, false},
    {"gelu_python_tanh", gelu_tanh, false},
    {"quick_gelu", quick_gelu, false},
    {"relu", relu, false},
    {"relu2", relu_squared, false},
    {"relu6", relu6, false},
    {"leaky_relu", leaky_relu, false},
    {"sigmoid", sigmoid, false},
    {"tanh", hyperbolic_tangent, false},
    {"mish", mish, false},
    {"hardswish", hardswish, false},
    {"laplace", laplace, false},
    {"sqrtsoftplus", square_root_softplus, false},
    {"linear", identity, false},
};

const char *nyb_activation_name_at(size_t index)
{
    return index < sizeof(activations) / sizeof(activations[0]) ? activations[index].name : NULL;
}

bool nyb_activation_find(nyb_activation *out, const char *name)
{
    for (size_t i = 0; i < sizeof(activations) / sizeof(activations[0]); i++) {
        if (strcmp(activations[i].name, name) == 0) {
            *out = activations[i];
            return true;
        }
    }
    return false;
}
