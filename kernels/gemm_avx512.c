#define MULTIPLY_ADD(sum, x, y) _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(y), sum)

#include "kernels/gemm_avx512_loops.h"
#include "kernels/gemm_levels.h"

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_FLOAT);
}

static void pack_rounded(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_ROUNDED);
}

const nyb_gemm nyb_gemm_avx512 = {
    .a_width = ROWS, .b_width = COLS, .step = 1, .pack = pack, .multiply = multiply};
const nyb_gemm nyb_gemm_rounded_avx512 = {
    .a_width = ROWS, .b_width = COLS, .step = 1, .pack = pack_rounded, .multiply = multiply};
