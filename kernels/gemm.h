// gemm.h - products of matrices on packed operands, in f32 or in bf16 with f32 sums.
//
// An operand is packed once into panels: `width` of its rows side by side, the inner index k
// running down, so that the innermost loop reads memory in order. Both sides of a product are packed
// alike, so a matrix that meets itself is packed once. A tile of the product is then
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
    NYB_GEMM_WORDS = 256,     // words of k that are summed before the result is touched
    NYB_GEMM_PACK_WORDS = 16, // words that are packed of all panels before the next ones
    NYB_GEMM_TALLEST = 8,     // bounds of the levels' height and width
    NYB_GEMM_WIDEST = 32,     //
    NYB_GEMM_APART = 2048,    // words that nyb_gemm_panel() adds at most
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

// Words [begin, end) of the panel whose first row is row0.
typedef struct nyb_pack_part {
    size_t row0, begin, end;
} nyb_pack_part;

// How one level makes products of one type.
typedef struct nyb_gemm {
    size_t width;  // rows of a panel
    size_t height; // rows of the left panel that the innermost loop takes at once; divides width
    size_t step;   // k of a word

    // Packs a part of a panel, whose place is `to`; rows and k that are not there become 0.
    void (*pack)(uint32_t *to, const nyb_operand *from, const nyb_pack_part *part);

    // c[height, width] = (add ? c : 0) + alpha a b^T over `words` words of two panels; the left
    // one's rows begin at `a`.
    void (*multiply)(size_t words, const uint32_t *a, const uint32_t *b, float *c, size_t stride,
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

// Words from one panel to the next. Panels a power of two apart would share the few lines of a
// cache that an address can be in, so those stand further apart.
static inline size_t nyb_gemm_panel(const nyb_gemm *g, size_t depth)
{
    const size_t words = g->width * nyb_gemm_depth(g, depth);
    return words % (2 * NYB_GEMM_APART) ? words : words + NYB_GEMM_APART;
}

// Words that a packed operand takes. No overflow for operands that are in memory.
static inline size_t nyb_gemm_packed(const nyb_gemm *g, size_t rows, size_t depth)
{
    return nyb_gemm_panels(rows, g->width) * nyb_gemm_panel(g, depth);
}

// Words in front of the panel whose first row is `row`.
static inline size_t nyb_gemm_place(const nyb_gemm *g, size_t row, size_t depth)
{
    return row / g->width * nyb_gemm_panel(g, depth);
}

// Packs panels [first, end) of `from` to their places in `to`, which is aligned to NYB_ALIGN.
void nyb_gemm_pack(const nyb_gemm *g, uint32_t *to, const nyb_operand *from, size_t first,
                   size_t end);

// c = (add ? c : 0) + alpha a b^T          a [c.rows, depth], b [c.cols, depth], packed
void nyb_gemm_tile(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b, size_t depth,
                   float alpha, bool add);

// The same for the elements of c at and above its diagonal; the others are left alone.
void nyb_gemm_tile_upper(const nyb_gemm *g, nyb_mat c, const uint32_t *a, const uint32_t *b,
                         size_t depth, float alpha, bool add);

// ---- Whole products, in parallel -------------------------------------------------------------

// Words of scratch that nyb_gemm_run() takes.
size_t nyb_gemm_run_words(const nyb_gemm *g, size_t m, size_t n, size_t depth);

// c = (add ? c : 0) + alpha a b^T          a [m, depth], b [n, depth], c [m, n]
void nyb_gemm_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *a,
                  const nyb_operand *b, float alpha, bool add, uint32_t *scratch);

// Upper triangle of c += x x^T; the strict lower triangle is left alone. x [n, depth], c [n, n],
// scratch: nyb_gemm_packed(g, n, depth) words.
void nyb_syrk_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, const nyb_operand *x,
                  uint32_t *scratch);

// As nyb_syrk_run(), with the same bits, and cross += x d^T from the same packed x. d [n, depth],
// cross [n, n], scratch: twice as many words.
void nyb_syrk_cross_run(const nyb_context *ctx, const nyb_gemm *g, nyb_mat c, nyb_mat cross,
                        const nyb_operand *x, const nyb_operand *d, uint32_t *scratch);

#endif // NYB_KERNELS_GEMM_H_
