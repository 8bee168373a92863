#include "kernels/codes.h"

#include "core/cpu.h"
#include "kernels/codes_levels.h"

const nyb_code_ops *nyb_code_ops_for(unsigned cpu)
{
#ifdef NYB_KERNELS_X86
    if (cpu & NYB_CPU_AVX512)
        return &nyb_code_ops_avx512;
    if (cpu & NYB_CPU_AVX2)
        return &nyb_code_ops_avx2;
#else
    (void) cpu;
#endif
    return &nyb_code_ops_portable;
}

const nyb_code_ops *nyb_code_ops_get(void)
{
    return nyb_code_ops_for(nyb_cpu());
}
