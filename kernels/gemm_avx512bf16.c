#define MULTIPLY_ADD(sum, x, y) _mm512_dpbf16_ps(sum, (__m512bh) (x), (__m512bh) (y))

#include "kernels/gemm_avx512_loops.h"
#include "kernels/gemm_levels.h"

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_PAIR);
}

const nyb_gemm nyb_gemm_avx512bf16 = {
    .a_width = ROWS, .b_width = COLS, .step = 2, .pack = pack, .multiply = multiply};
