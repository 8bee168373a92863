// rotation.h - a random orthogonal matrix Q that is applied without being formed.
//
// With n = p m, p the largest power of two that divides n: Q = S (H / sqrt(p) x O), where S has random
// signs on its diagonal, H is the Hadamard matrix of order p, O a random orthogonal matrix of order m,
// and x the Kronecker product. For powers of two that is the randomised Hadamard transform (Ashkboos
// et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", arXiv:2404.00456, section 3).
#ifndef NYB_CALIB_ROTATION_H_
#define NYB_CALIB_ROTATION_H_

#include <stddef.h>
#include <stdint.h>

#include "nybble/status.h"

typedef struct nyb_rotation {
    size_t n, p, m;
    double *signs; // [n] -1 or 1
    double *rest;  // [m, m] O
} nyb_rotation;

// NYB_E_NOMEM  out is zeroed.
NYB_NODISCARD nyb_status nyb_rotation_make(nyb_rotation *out, size_t n, uint64_t seed,
                                           nyb_err *err);
void nyb_rotation_clear(nyb_rotation *rotation); // zeroed is fine

// x Q in x's place.
//
//   x        [n]
//   scratch  [m]
void nyb_rotation_apply(const nyb_rotation *rotation, double *x, double *scratch);

#endif // NYB_CALIB_ROTATION_H_
