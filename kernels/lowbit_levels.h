// lowbit_levels.h - the compiled levels of lowbit_loops.h, for the dispatch in lowbit.c.
#ifndef NYB_KERNELS_LOWBIT_LEVELS_H_
#define NYB_KERNELS_LOWBIT_LEVELS_H_

#include "kernels/lowbit.h"

extern const nyb_lowbit_ops nyb_lowbit_ops_portable, nyb_lowbit_ops_avx2, nyb_lowbit_ops_avx512,
    nyb_lowbit_ops_avx512vnni;

// Places and words of a unit.
static inline size_t nyb_lowbit_unit(unsigned bits)
{
    return bits == 3 ? 32 : 32 / bits;
}

static inline size_t nyb_lowbit_unit_words(unsigned bits)
{
    return bits == 3 ? 3 : 1;
}

#endif // NYB_KERNELS_LOWBIT_LEVELS_H_
