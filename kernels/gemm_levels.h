// gemm_levels.h - the compiled levels, for the dispatch in gemm.c.
#ifndef NYB_KERNELS_GEMM_LEVELS_H_
#define NYB_KERNELS_GEMM_LEVELS_H_

#include "kernels/gemm.h"

// Products of floats, and of bf16 that are kept as floats.
extern const nyb_gemm nyb_gemm_portable, nyb_gemm_avx2, nyb_gemm_avx512;
extern const nyb_gemm nyb_gemm_rounded_portable, nyb_gemm_rounded_avx2, nyb_gemm_rounded_avx512;

// Products of pairs of bf16.
extern const nyb_gemm nyb_gemm_avx512bf16;

#endif // NYB_KERNELS_GEMM_LEVELS_H_
