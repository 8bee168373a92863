#include "kernels/gemm.h"

#include <assert.h>
#include <string.h>

#include "core/cpu.h"
#include "kernels/gemm_levels.h"

enum { PACK_WORDS = 16 };

const nyb_gemm *nyb_gemm_for(nyb_compute compute, unsigned cpu)
{
    const bool rounded = compute == NYB_COMPUTE_BF16;
#ifdef NYB_KERNELS_X86
    if (rounded && (cpu & NYB_CPU_AVX512BF16))
        return &nyb_gemm_avx512bf16;
    if (cpu & NYB_CPU_AVX512)
        return rounded ? &nyb_gemm_rounded_avx512 : &nyb_gemm_avx512;
    if (cpu & NYB_CPU_AVX2)
        return rounded ? &nyb_gemm_rounded_avx2 : &nyb_gemm_avx2;
#else
    (void) cpu;
#endif
    return rounded ? &nyb_gemm_rounded_portable : &nyb_gemm_portable;
}

const nyb_gemm *nyb_gemm_get(nyb_compute compute)
{
    return nyb_gemm_for(compute, nyb_cpu());
}

void nyb_gemm_pack(const nyb_gemm *g, uint32_t *to, const nyb_operand *from, size_t width,
                   size_t first, size_t end)
{
    const size_t words = nyb_gemm_depth(g, from->depth);
    assert(from->dtype == NYB_F32 || from->dtype == NYB_BF16);
    // Panel by panel inside a few rows of memory, so that a row's cache lines are used up.
    for (size_t w = 0; w < words; w += PACK_WORDS) {
        const size_t stop = words - w < PACK_WORDS ? words : w + PACK_WORDS;
        for (size_t p = first; p < end; p++)
            g->pack(to + p * width * words, from,
                    &(nyb_pack_part){.row0 = p * width, .width = width, .begin = w, .end = stop});
    }
}

// One result of the innermost loop that does not fit its place as a whole: rows and columns behind
// the end of c, or, with `upper`, elements of c at (i, j) with j + 1 <= i.
static void multiply_part(const nyb_gemm *g, nyb_mat c, size_t i0, size_t j0, size_t words,
                          const nyb_gemm_sides *sides, float alpha, bool add, bool upper)
{
    float part[NYB_GEMM_TALLEST * NYB_GEMM_WIDEST];
    g->multiply(words, sides, part, g->b_width, alpha, false);
    for (size_t i = i0; i < i0 + g->a_width && i < c.rows; i++) {
        const float *const from = part + (i - i0) * g->b_width;
        float *const to = nyb_row(c, i);
        for (size_t j = upper && i > j0 ? i : j0; j < j0 + g->b_width && j < c.cols; j++)
            to[j] = add ? from[j - j0] + to[j] : from[j - j0];
    }
}

// Word `word` of row `row` of an operand packed in panels of `width` rows and `words` words.
static const uint32_t *place(const uint32_t *packed, size_t width, size_t words, size_t row,
                             size_t word)
{
    return packed + (row - row % width) * words + row % width + word * width;
}

// a and b are sides->a and b's beginnings; the strides are the widths of their panels.
static void multiply_all(const nyb_gemm *g, nyb_mat c, const nyb_gemm_sides *all, size_t depth,
                         float alpha, bool add, bool upper)
{
    const size_t words = nyb_gemm_depth(g, depth), tall = g->a_width, wide = g->b_width;
    nyb_gemm_sides sides = *all;
    for (size_t w = 0; w < words; w += NYB_GEMM_WORDS) {
        const size_t count = words - w < NYB_GEMM_WORDS ? words - w : NYB_GEMM_WORDS;
        for (size_t i = 0; i < c.rows; i += tall) {
            sides.a = place(all->a, all->a_stride, words, i, w);
            for (size_t j = upper ? i - i % wide : 0; j < c.cols; j += wide) {
                const bool whole =
                    i + tall <= c.rows && j + wide <= c.cols && !(upper && i + tall > j + 1);
                sides.b = place(all->b, all->b_stride, words, j, w);
                if (whole)
                    g->multiply(count, &sides, nyb_row(c, i) + j, c.stride, alpha, add || w > 0);
                else
                    multiply_part(g, c, i, j, count, &sides, alpha, add || w > 0, upper);
            }
        }
    }
}

void nyb_gemm_tile(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b, size_t depth,
                   float alpha, bool add)
{
    assert(depth > 0);
    multiply_all(g, c, &(nyb_gemm_sides){a, b, g->a_width, g->b_width}, depth, alpha, add, false);
}

void nyb_syrk_tile(const nyb_gemm *g, nyb_mat c, const uint32_t *x, size_t row0, size_t col0,
                   size_t depth)
{
    const size_t words = nyb_gemm_depth(g, depth);
    assert(depth > 0 && row0 % g->b_width == 0 && col0 % g->b_width == 0);
    const nyb_gemm_sides sides = {x + row0 * words, x + col0 * words, g->b_width, g->b_width};
    multiply_all(g, c, &sides, depth, 1.0f, true, row0 == col0);
}
