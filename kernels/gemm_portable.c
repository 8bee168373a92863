#include "kernels/gemm_levels.h"
#include "kernels/gemm_pack_loops.h"

enum { ROWS = 4, COLS = LANES };

typedef float floats __attribute__((vector_size(4 * LANES)));

static void multiply(size_t count, const uint32_t *a, const uint32_t *b, float *c, size_t stride,
                     float alpha, bool add)
{
    floats s[ROWS] = {{0}}, y;
    for (size_t k = 0; k < count; k++, a += COLS, b += COLS) {
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
    pack_panel(to, from, part, COLS, CONTENT_FLOAT);
}

static void pack_rounded(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part)
{
    pack_panel(to, from, part, COLS, CONTENT_ROUNDED);
}

const nyb_gemm nyb_gemm_portable = {
    .width = COLS, .height = ROWS, .step = 1, .pack = pack, .multiply = multiply};
const nyb_gemm nyb_gemm_rounded_portable = {
    .width = COLS, .height = ROWS, .step = 1, .pack = pack_rounded, .multiply = multiply};
