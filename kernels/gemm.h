// gemm.h - products of matrices on packed operands, in f32 or in bf16 with f32 sums.
//
// An operand is packed once into panels: `width` of its rows side by side, the inner index k
// running down, so that the innermost loop reads memory in order. A tile of the product is then
// made by one call on the calling thread; callers cut large work into tiles by shape alone.
//
// Packed data are words of 32 bits: a float, or two bf16 of neighbouring k. On CPUs without bf16
// products, bf16 operands are rounded while they are packed and kept as floats. Sums run in f32
// over NYB_GEMM_WORDS words and are added to the result in that order.
#ifndef NYB_KERNELS_GEMM_H_
#define NYB_KERNELS_GEMM_H_

#include <stdint.h>

#include "nybble/context.h"
#include "nybble/tensor.h"

enum {
    NYB_GEMM_WORDS = 256, // words of k that are summed before the result is touched
    NYB_GEMM_TALLEST = 8, // bounds of the levels' a_width and b_width
    NYB_GEMM_WIDEST = 48, //
};

// A matrix of f32 or bf16 to be packed; the k-th element of row i is
// at[i * stride + k], or at[k * stride + i] when `down` is set. May be misaligned for bf16.
typedef struct nyb_operand {
    const void *at;
    nyb_dtype dtype;
    size_t rows, depth; // i < rows, k < depth
    size_t stride;      // in elements
    bool down;
} nyb_operand;

// Words [begin, end) of a panel's rows [row0, row0 + width).
typedef struct nyb_pack_part {
    size_t row0, width, begin, end;
} nyb_pack_part;

// Where the innermost loop finds its operands: word k of row i of the left one is
// a[k * a_stride + i], and likewise for the right one.
typedef struct nyb_gemm_sides {
    const uint32_t *a, *b;
    size_t a_stride, b_stride; // words
} nyb_gemm_sides;

// How one level makes products of one type.
typedef struct nyb_gemm {
    size_t a_width, b_width; // rows of a panel of the left and the right operand; a divides b
    size_t step;             // k of a word

    // Packs a part of a panel, whose place is `to`; rows and k that are not there become 0. Words
    // of the panel behind the part may be overwritten.
    void (*pack)(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part);

    // c[a_width, b_width] = (add ? c : 0) + alpha a b^T over `words` words of both sides.
    void (*multiply)(size_t words, const nyb_gemm_sides *sides, float *c, size_t stride,
                     float alpha, bool add);

    // For scores that become an operand: the largest of n >= 1, and x = e^(x - top) for x <= top,
    // which returns the sum, as exactly as an operand can hold it. NULL: kernels/vector.h does.
    float (*largest)(const float *x, size_t n);
    double (*exponentials)(float *x, size_t n, float top);
} nyb_gemm;

// The functions for a CPU with these features (core/cpu.h). NYB_COMPUTE_AUTO is f32.
const nyb_gemm *nyb_gemm_for(nyb_compute compute, unsigned cpu);

// Those for this machine.
const nyb_gemm *nyb_gemm_get(nyb_compute compute);

static inline nyb_operand nyb_operand_of(nyb_mat m)
{
    return (nyb_operand){
        .at = m.at, .dtype = NYB_F32, .rows = m.rows, .depth = m.cols, .stride = m.stride};
}

// m^T.
static inline nyb_operand nyb_operand_turned(nyb_mat m)
{
    return (nyb_operand){.at = m.at,
                         .dtype = NYB_F32,
                         .rows = m.cols,
                         .depth = m.rows,
                         .stride = m.stride,
                         .down = true};
}

static inline size_t nyb_gemm_panels(size_t rows, size_t width)
{
    return (rows + width - 1) / width;
}

// Words of a packed row.
static inline size_t nyb_gemm_depth(const nyb_gemm *g, size_t depth)
{
    return (depth + g->step - 1) / g->step;
}

// Words that an operand takes in panels of this width: the place of panel p is p times the words
// of one panel. No overflow for operands that are in memory.
static inline size_t nyb_gemm_packed(const nyb_gemm *g, size_t rows, size_t depth, size_t width)
{
    return nyb_gemm_panels(rows, width) * width * nyb_gemm_depth(g, depth);
}

// Packs panels [first, end) of `from` to their places in `to`, which is aligned to NYB_ALIGN.
void nyb_gemm_pack(const nyb_gemm *g, uint32_t *to, const nyb_operand *from, size_t width,
                   size_t first, size_t end);

// c = (add ? c : 0) + alpha a b^T          a [c.rows, depth], b [c.cols, depth], packed
void nyb_gemm_tile(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b, size_t depth,
                   float alpha, bool add);

// c += the rows [row0, row0 + c.rows) of x times the rows [col0, col0 + c.cols), x packed in panels
// of b_width. Both begin at a panel. When they are the same rows, what lies below c's
// diagonal is left alone.
void nyb_syrk_tile(const nyb_gemm *g, nyb_mat c, const uint32_t *x, size_t row0, size_t col0,
                   size_t depth);

// ---- Whole products, in parallel -------------------------------------------------------------

// Words of scratch that nyb_gemm_run() takes.
size_t nyb_gemm_run_words(const nyb_gemm *g, size_t m, size_t n, size_t depth);

// c = (add ? c : 0) + alpha a b^T          a [m, depth], b [n, depth], c [m, n]
void nyb_gemm_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *a,
                  const nyb_operand *b, float alpha, bool add, uint32_t *scratch);

// Words of scratch that nyb_syrk_run() takes.
size_t nyb_syrk_run_words(const nyb_gemm *g, size_t n, size_t depth);

// Upper triangle of c += x x^T; the strict lower triangle is left alone. x [n, depth], c [n, n].
void nyb_syrk_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *x,
                  uint32_t *scratch);

#endif // NYB_KERNELS_GEMM_H_
