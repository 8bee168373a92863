#include "kernels/gemm_levels.h"
#include "kernels/gemm_pack_loops.h"

enum { ROWS = 4, COLS = LANES };

typedef float floats __attribute__((vector_size(4 * LANES)));

static void multiply(size_t count, const nyb_gemm_sides *sides, float *c, size_t stride,
                     float alpha, bool add)
{
    const uint32_t *a = sides->a, *b = sides->b;
    const size_t a_stride = sides->a_stride, b_stride = sides->b_stride;
    floats s[ROWS] = {{0}}, y;
    for (size_t k = 0; k < count; k++, a += a_stride, b += b_stride) {
        float x[ROWS];
        memcpy(x, a, sizeof(x));
        memcpy(&y, b, sizeof(y));
        for (int i = 0; i < ROWS; i++)
            s[i] += x[i] * y;
    }
    for (int i = 0; i < ROWS; i++) {
        float *const at = c + (size_t) i * stride;
        s[i] *= alpha;
        if (add) {
            memcpy(&y, at, sizeof(y));
            s[i] += y;
        }
        memcpy(at, &s[i], sizeof(s[i]));
    }
}

static void pack(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_FLOAT);
}

static void pack_rounded(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, CONTENT_ROUNDED);
}

const nyb_gemm nyb_gemm_portable = {
    .a_width = ROWS, .b_width = COLS, .step = 1, .pack = pack, .multiply = multiply};
const nyb_gemm nyb_gemm_rounded_portable = {
    .a_width = ROWS, .b_width = COLS, .step = 1, .pack = pack_rounded, .multiply = multiply};
