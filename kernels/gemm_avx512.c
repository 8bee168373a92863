#define MULTIPLY_ADD(sum, x, y) _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y), sum)
#define POWER_COEFFICIENTS                                                                         \
    {                                                                                              \
        0x1.000002p0f, 0x1.62e428p-1f, 0x1.ebf918p-3f, 0x1.c6b6e4p-5f, 0x1.3d0c54p-7f,             \
            0x1.5c08e4p-10f                                                                        \
    }

#include "kernels/gemm_avx512_loops.h"
#include "kernels/gemm_levels.h"

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, COLS, CONTENT_FLOAT);
}

static void pack_rounded(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, COLS, CONTENT_ROUNDED);
}

const nyb_gemm nyb_gemm_avx512 = {.width = COLS,
                                  .height = ROWS,
                                  .step = 1,
                                  .pack = pack,
                                  .multiply = multiply,
                                  .largest = largest,
                                  .exponentials = exponentials};
const nyb_gemm nyb_gemm_rounded_avx512 = {.width = COLS,
                                          .height = ROWS,
                                          .step = 1,
                                          .pack = pack_rounded,
                                          .multiply = multiply,
                                          .largest = largest,
                                          .exponentials = exponentials};
