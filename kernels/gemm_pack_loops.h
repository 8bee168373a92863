// gemm_pack_loops.h - packing behind gemm.h. Included once by each gemm_<isa>.c, which is compiled
// with that instruction set's flags; everything here is static.
#ifndef NYB_KERNELS_GEMM_PACK_LOOPS_H_
#define NYB_KERNELS_GEMM_PACK_LOOPS_H_

#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "kernels/gemm.h"

enum { LANES = 16 };

typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t pairs __attribute__((vector_size(4 * LANES)));

// What a packed word holds.
typedef enum content {
    CONTENT_FLOAT,   // an f32
    CONTENT_ROUNDED, // an f32 rounded to bf16
    CONTENT_PAIR,    // two bf16, the lower k in the lower half
} content;

// f32 to the nearest bf16, ties to even, in the upper half. NaN stays NaN.
static inline void round_lanes(words *v)
{
    const words nan = (words) ((*v & 0x7fffffff) > 0x7f800000);
    const words up = *v + 0x7fff + (*v >> 16 & 1);
    *v = ((nan & (*v | 0x400000)) | (~nan & up)) & 0xffff0000;
}

static inline void load_words(words *v, const void *x)
{
    memcpy(v, x, sizeof(*v));
}

// LANES bf16 into the lower halves.
static inline void load_halves(words *v, const void *x)
{
    halves h;
    memcpy(&h, x, sizeof(h));
    *v = __builtin_convertvector(h, words);
}

// LANES neighbouring elements, as the bits of f32.
static inline void load_wide(words *v, const void *x, nyb_dtype dtype)
{
    if (dtype == NYB_BF16) {
        load_halves(v, x);
        *v <<= 16;
    } else {
        load_words(v, x);
    }
}

// Two vectors of f32 into one of pairs: a and b follow each other in memory.
static inline void join_neighbours(words *out, words *a, words *b)
{
#ifdef __AVX512BF16__
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512) *b, (__m512) *a);
    memcpy(out, &both, sizeof(*out));
#else
    round_lanes(a);
    round_lanes(b);
    const words even =
        __builtin_shufflevector(*a, *b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const words odd =
        __builtin_shufflevector(*a, *b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    *out = even >> 16 | odd;
#endif
}

static inline size_t bytes_of(nyb_dtype dtype)
{
    return dtype == NYB_BF16 ? 2 : 4;
}

// Asks for memory that is read after the other panels of these words: it comes from far away, in
// pieces of a few lines that the CPU does not foresee.
static inline void ask_for(const unsigned char *x, size_t ahead, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const void *) ((uintptr_t) x + ahead + i), 0, 2);
}

// The words [0, LANES) of the elements at x, which follow each other.
static inline void load_along(words *v, const void *x, nyb_dtype dtype, content what)
{
    if (what != CONTENT_PAIR) {
        load_wide(v, x, dtype);
        if (what == CONTENT_ROUNDED && dtype != NYB_BF16)
            round_lanes(v);
    } else if (dtype == NYB_BF16) {
        load_words(v, x);
    } else {
        words a, b;
        load_words(&a, x);
        load_words(&b, (const float *) x + LANES);
        join_neighbours(v, &a, &b);
    }
}

// As load_along() where only n elements are there.
static inline void load_along_some(words *v, const void *x, size_t n, nyb_dtype dtype, content what)
{
    unsigned char full[2 * LANES * sizeof(float)] = {0};
    memcpy(full, x, n * bytes_of(dtype));
    load_along(v, full, dtype, what);
}

// Rows become columns: four steps of dealing two halves of the vectors like two halves of a pack
// of cards, each of which rotates the eight bits of an element's place by one.
static inline void transpose(words v[LANES])
{
    for (int step = 0; step < 4; step++) {
        words t[LANES];
        for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                               21, 6, 22, 7, 23);
            t[2 * i + 1] = __builtin_shufflevector(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12,
                                                   28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(v, t, sizeof(t));
    }
}

// LANES rows from row0 on, words [w, w + LANES) of each; what is not there becomes 0.
static inline __attribute__((always_inline)) void load_square(words v[LANES],
                                                              const nyb_operand *from, size_t row0,
                                                              size_t w, nyb_dtype dtype,
                                                              content what)
{
    const size_t step = what == CONTENT_PAIR ? 2 : 1, bytes = bytes_of(dtype);
    const size_t left = from->depth - w * step;
    const size_t rows = row0 < from->rows ? from->rows - row0 : 0;
    const unsigned char *const x =
        (const unsigned char *) from->at + (row0 * from->stride + w * step) * bytes;
    if (rows >= LANES && left >= LANES * step) {
        for (size_t i = 0; i < LANES; i++) {
            ask_for(x + i * from->stride * bytes, NYB_GEMM_PACK_WORDS * step * bytes,
                    LANES * step * bytes);
            load_along(&v[i], x + i * from->stride * bytes, dtype, what);
        }
        return;
    }
    for (size_t i = 0; i < LANES; i++) {
        v[i] = (words){0};
        if (i < rows && left >= LANES * step)
            load_along(&v[i], x + i * from->stride * bytes, dtype, what);
        else if (i < rows)
            load_along_some(&v[i], x + i * from->stride * bytes, left, dtype, what);
    }
}

// Panels of an operand whose rows lie along memory.
static inline __attribute__((always_inline)) void pack_along(uint32_t *to, const nyb_operand *from,
                                                             const nyb_pack_part *part,
                                                             size_t width, nyb_dtype dtype,
                                                             content what)
{
    for (size_t w = part->begin; w < part->end; w += LANES) {
        const size_t here = part->end - w < LANES ? part->end - w : LANES;
        for (size_t g = 0; g < width; g += LANES) {
            words v[LANES];
            load_square(v, from, part->row0 + g, w, dtype, what);
            transpose(v);
            for (size_t i = 0; i < here; i++)
                memcpy(to + (w + i) * width + g, &v[i], sizeof(v[i]));
        }
    }
}

// LANES elements of the k-th row of an operand that lies down, n of which are there.
static inline void load_down(words *v, const unsigned char *x, size_t n, nyb_dtype dtype)
{
    if (n >= LANES) {
        load_wide(v, x, dtype);
        return;
    }
    unsigned char full[LANES * sizeof(float)] = {0};
    memcpy(full, x, n * bytes_of(dtype));
    load_wide(v, full, dtype);
}

// Two vectors of f32 into one of pairs: a lies at one k, b at the next.
static inline void join_rows(words *out, words *a, words *b, nyb_dtype dtype)
{
#ifdef __AVX512BF16__
    if (dtype != NYB_BF16) {
        const __m512bh both = _mm512_cvtne2ps_pbh((__m512) *b, (__m512) *a);
        pairs p;
        memcpy(&p, &both, sizeof(p));
        p = __builtin_shufflevector(p, p, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                    24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        memcpy(out, &p, sizeof(*out));
        return;
    }
#endif
    if (dtype != NYB_BF16) {
        round_lanes(a);
        round_lanes(b);
    }
    *out = *a >> 16 | *b;
}

// Panels of an operand whose columns lie along memory.
static inline __attribute__((always_inline)) void pack_down(uint32_t *to, const nyb_operand *from,
                                                            const nyb_pack_part *part, size_t width,
                                                            nyb_dtype dtype, content what)
{
    const size_t step = what == CONTENT_PAIR ? 2 : 1, bytes = bytes_of(dtype);
    for (size_t w = part->begin; w < part->end; w++) {
        for (size_t g = 0; g < width; g += LANES) {
            const size_t row = part->row0 + g, n = row < from->rows ? from->rows - row : 0;
            const unsigned char *const x =
                (const unsigned char *) from->at + (w * step * from->stride + row) * bytes;
            words v = {0}, next = {0};
            for (size_t i = 0; n > 0 && i < step; i++)
                ask_for(x, (NYB_GEMM_PACK_WORDS * step + i) * from->stride * bytes, LANES * bytes);
            if (n > 0)
                load_down(&v, x, n, dtype);
            if (what == CONTENT_PAIR && n > 0 && w * 2 + 1 < from->depth)
                load_down(&next, x + from->stride * bytes, n, dtype);
            if (what == CONTENT_PAIR)
                join_rows(&v, &v, &next, dtype);
            else if (what == CONTENT_ROUNDED && dtype != NYB_BF16)
                round_lanes(&v);
            memcpy(to + w * width + g, &v, sizeof(v));
        }
    }
}

static inline __attribute__((always_inline)) void pack_panel(uint32_t *to, const nyb_operand *from,
                                                             const nyb_pack_part *part,
                                                             size_t width, content what)
{
    if (from->down && from->dtype == NYB_BF16)
        pack_down(to, from, part, width, NYB_BF16, what);
    else if (from->down)
        pack_down(to, from, part, width, NYB_F32, what);
    else if (from->dtype == NYB_BF16)
        pack_along(to, from, part, width, NYB_BF16, what);
    else
        pack_along(to, from, part, width, NYB_F32, what);
}

#endif // NYB_KERNELS_GEMM_PACK_LOOPS_H_
