#include "kernels/gemm.h"

#include <assert.h>
#include <string.h>

#include "core/cpu.h"
#include "kernels/gemm_levels.h"

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

void nyb_gemm_pack(const nyb_gemm *g, uint32_t *to, const nyb_operand *from, size_t first,
                   size_t end)
{
    const size_t words = nyb_gemm_depth(g, from->depth);
    assert(from->dtype == NYB_F32 || from->dtype == NYB_BF16);
    // Panel by panel inside a few rows of memory, so that a row's cache lines are used up.
    for (size_t w = 0; w < words; w += NYB_GEMM_PACK_WORDS) {
        const size_t stop = words - w < NYB_GEMM_PACK_WORDS ? words : w + NYB_GEMM_PACK_WORDS;
        for (size_t p = first; p < end; p++)
            g->pack(to + p * nyb_gemm_panel(g, from->depth), from,
                    &(nyb_pack_part){.row0 = p * g->width, .begin = w, .end = stop});
    }
}

// One result of the innermost loop that does not fit its place as a whole: rows and columns behind
// the end of c, or, with `upper`, elements of c at (i, j) with j + 1 <= i.
static void multiply_part(const nyb_gemm *g, nyb_mat c, size_t i0, size_t j0, size_t words,
                          const uint32_t *const sides[2], float alpha, bool add, bool upper)
{
    float part[NYB_GEMM_TALLEST * NYB_GEMM_WIDEST];
    g->multiply(words, sides[0], sides[1], part, g->width, alpha, false);
    for (size_t i = i0; i < i0 + g->height && i < c.rows; i++) {
        const float *const from = part + (i - i0) * g->width;
        float *const to = nyb_row(c, i);
        for (size_t j = upper && i > j0 ? i : j0; j < j0 + g->width && j < c.cols; j++)
            to[j] = add ? from[j - j0] + to[j] : from[j - j0];
    }
}

// The left rows stay in the first cache, the right panels stream past them.
static void multiply_all(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b,
                         size_t depth, float alpha, bool add, bool upper)
{
    const size_t words = nyb_gemm_depth(g, depth), tall = g->height, wide = g->width;
    const size_t panel = nyb_gemm_panel(g, depth);
    for (size_t w = 0; w < words; w += NYB_GEMM_WORDS) {
        const size_t count = words - w < NYB_GEMM_WORDS ? words - w : NYB_GEMM_WORDS;
        for (size_t i = 0; i < c.rows; i += tall) {
            const size_t in_panel = i % wide;
            const uint32_t *const left = a + i / wide * panel + w * wide + in_panel;
            for (size_t j = upper ? i - in_panel : 0; j < c.cols; j += wide) {
                const uint32_t *const right = b + j / wide * panel + w * wide;
                const bool whole =
                    i + tall <= c.rows && j + wide <= c.cols && !(upper && i + tall > j + 1);
                if (whole)
                    g->multiply(count, left, right, nyb_row(c, i) + j, c.stride, alpha,
                                add || w > 0);
                else
                    multiply_part(g, c, i, j, count, (const uint32_t *const[2]){left, right}, alpha,
                                  add || w > 0, upper);
            }
        }
    }
}

void nyb_gemm_tile(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b, size_t depth,
                   float alpha, bool add)
{
    assert(depth > 0);
    multiply_all(g, c, a, b, depth, alpha, add, false);
}

void nyb_gemm_tile_upper(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b,
                         size_t depth, float alpha, bool add)
{
    assert(depth > 0);
    multiply_all(g, c, a, b, depth, alpha, add, true);
}
