#define MULTIPLY_ADD(sum, x, y) _mm512_dpbf16_ps(sum, (__m512bh) (x), (__m512bh) (y))
#define POWER_COEFFICIENTS                                                                         \
    {                                                                                              \
        0x1.fff692p-1f, 0x1.62f31ap-1f, 0x1.f0de1cp-3f, 0x1.c3f760p-5f                             \
    }

#include "kernels/gemm_avx512_loops.h"
#include "kernels/gemm_levels.h"

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, COLS, CONTENT_PAIR);
}

const nyb_gemm nyb_gemm_avx512bf16 = {.width = COLS,
                                      .height = ROWS,
                                      .step = 2,
                                      .pack = pack,
                                      .multiply = multiply,
                                      .largest = largest,
                                      .exponentials = exponentials};
