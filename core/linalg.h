// linalg.h - dense linear algebra on views. The only part that talks to BLAS and LAPACK.
//
// Every call runs on the calling thread alone, and BLAS is told to do the same: two BLAS
// threads give other bits than one. Callers cut large work into fixed tiles instead.
#ifndef NYB_CORE_LINALG_H_
#define NYB_CORE_LINALG_H_

#include "core/status.h"
#include "nybble/context.h"
#include "nybble/tensor.h"

// Makes OpenBLAS use the kernels that fit this CPU, and one thread. Older versions pick AVX2
// kernels on CPUs that they do not know. A core type set by the user is left alone. Runs once
// and is cheap after that; every function here calls it.
void nyb_blas_init(void);

const char *nyb_blas_name(void); // library and version
const char *nyb_blas_core(void); // the kernel set in use, for example "SkylakeX"

// c = beta c + alpha a b^T          a [m, k], b [n, k], c [m, n]
void nyb_gemm_nt(nyb_mat c, nyb_mat a, nyb_mat b, float alpha, float beta);

// c = beta c + alpha a b            a [m, k], b [k, n], c [m, n]
void nyb_gemm_nn(nyb_mat c, nyb_mat a, nyb_mat b, float alpha, float beta);

// c = beta c + alpha a^T b          a [k, m], b [k, n], c [m, n]
void nyb_gemm_tn(nyb_mat c, nyb_mat a, nyb_mat b, float alpha, float beta);

// y = a x                           a [m, k], x [k], y [m]
void nyb_gemv(float *y, nyb_mat a, const float *x);

// h [n, n] symmetric positive definite, of which the upper triangle is read, becomes the upper
// triangular U with inv(h) = U^T U; the strict lower triangle is left undefined.
//
// NYB_E_NOT_PD   h is not positive definite; err names the column. h is spoiled.
// NYB_E_NUMERIC  h holds a NaN or an infinity. h is spoiled.
NYB_NODISCARD nyb_status nyb_inverse_factor(const nyb_context *ctx, nyb_mat h, nyb_err *err);

#endif // NYB_CORE_LINALG_H_
