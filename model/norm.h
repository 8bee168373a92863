// norm.h - norms of rows, as the families have them.
#ifndef NYB_MODEL_NORM_H_
#define NYB_MODEL_NORM_H_

#include "model/model.h"

// A norm with its gains in f32. A layer norm may be without gains and biases.
typedef struct nyb_norm {
    nyb_norm_kind kind;
    const float *gain, *bias; // NULL: none
    double eps;
} nyb_norm;

// Norm `vector` of the loaded block.
nyb_norm nyb_norm_of(const nyb_block_weights *weights, int vector);

// y = norm(x) for n >= 1 elements; y may be x.
void nyb_norm_row(const nyb_norm *norm, float *y, const float *x, size_t n);

// x = x / sqrt(mean(x^2) + eps)
void nyb_norm_unit(float *x, size_t n, double eps);

#endif // NYB_MODEL_NORM_H_
