// vector.h - element-wise loops of the forward pass on rows of f32.
//
// The same C source is compiled for each instruction set, with sixteen explicit lanes and no
// fused operations, so every level gives the same bits. Sums run in f32 over at most 256
// elements and in f64 from there on. Rows may be misaligned.
#ifndef NYB_KERNELS_VECTOR_H_
#define NYB_KERNELS_VECTOR_H_

#include <stddef.h>

typedef struct nyb_vector_ops {
    // y = gain * x / sqrt(mean(x^2) + eps) for n >= 1 elements; y may be x.
    // Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.
    void (*rms_norm)(float *y, const float *x, const float *gain, size_t n, double eps);

    // gate = gate / (1 + e^-gate) * up. Shazeer, "GLU Variants", arXiv:2002.05202, SwiGLU.
    void (*silu_gate)(float *gate, const float *up, size_t n);

    // Turns the pairs (x[i], x[half + i]) by the angles whose cosines are turn[0 .. half) and
    // whose sines are turn[half .. 2 half).
    void (*rotate)(float *x, const float *turn, size_t half);

    // x = e^(x - max x), n >= 1; returns the sum. Softmax is x divided by it.
    double (*softmax)(float *x, size_t n);

    // x = e^(x - top) for x <= top, n >= 1; returns the sum.
    double (*exponentials)(float *x, size_t n, float top);

    float (*largest)(const float *x, size_t n); // n >= 1

    // log(sum e^x), n >= 1.
    double (*log_sum_exp)(const float *x, size_t n);

    void (*add)(float *y, const float *x, size_t n);                      // y += x
    void (*add_scaled)(float *y, const float *x, float factor, size_t n); // y += factor * x
    void (*scale)(float *x, float factor, size_t n);                      // x *= factor
    size_t (*first_not_finite)(const float *x, size_t n);                 // an index, or n
    size_t (*argmax)(const float *x, size_t n); // the first of equals; n >= 1

    // y = the bf16 nearest to x, ties to even, NaN stays NaN; y may begin where x does.
    void (*narrow)(void *y, const float *x, size_t n);
    void (*widen)(float *y, const void *x, size_t n); // y = bf16 x
} nyb_vector_ops;

// The operations for a CPU with these features (core/cpu.h).
const nyb_vector_ops *nyb_vector_ops_for(unsigned cpu);

// Those for this machine.
const nyb_vector_ops *nyb_vector_ops_get(void);

#endif // NYB_KERNELS_VECTOR_H_
