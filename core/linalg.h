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

// upper triangle of c += a^T a      a [k, n], c [n, n]; the strict lower triangle is left alone
void nyb_syrk_t(nyb_mat c, nyb_mat a);

// x = x inv(v^T)                    v [n, n] upper triangular, x [m, n]
void nyb_trsm_right(nyb_mat x, nyb_mat v);

// x = -u x                          u [m, m] upper triangular, x [m, n]
void nyb_trmm_left(nyb_mat x, nyb_mat u);

// The lower triangle of a becomes L with a = L L^T. Returns 0, or 1 + the first column at which a
// is not positive definite. The strict upper triangle is left alone, here and below.
size_t nyb_cholesky(nyb_mat a);

// The upper triangle of v becomes its inverse. v has no 0 on its diagonal.
void nyb_invert_upper(nyb_mat v);

#endif // NYB_CORE_LINALG_H_
