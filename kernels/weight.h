// weight.h - a weight W of y = x W^T in the form in which it lies in memory: floats of a mapped
// file, or packed codes. Nothing is unpacked but a panel at a time.
#ifndef NYB_KERNELS_WEIGHT_H_
#define NYB_KERNELS_WEIGHT_H_

#include "kernels/gemm.h"
#include "kernels/lowbit.h"

enum {
    NYB_WEIGHT_ROWS = 64,                                 // that are unpacked at a time
    NYB_WEIGHT_PANEL = NYB_WEIGHT_ROWS + NYB_LOWBIT_ROWS, // with those of a tile that come before
};

// Borrows everything.
typedef struct nyb_weight {
    size_t rows, cols;
    const nyb_lowbit *codes; // NULL: floats
    const void *at;          // [rows, cols] of dtype, row-major, may be misaligned; finite
    nyb_dtype dtype;         // f32, f16 or bf16
} nyb_weight;

// What a product with one vector reads instead of x.
typedef struct nyb_weight_input {
    const float *floats;    // for floats: x itself
    nyb_lowbit_input codes; // for codes
} nyb_weight_input;

// Makes the input for all pieces of a weight, in `memory`, aligned to 4 bytes, of
// nyb_weight_input_bytes(). x has to stay.
size_t nyb_weight_input_bytes(const nyb_weight *w);
nyb_weight_input nyb_weight_input_make(const nyb_weight *w, void *memory, const float *x);

// Whether an input made for a serves b too.
bool nyb_weight_same_input(const nyb_weight *a, const nyb_weight *b);

// y[i] = sum over j of w[row0 + i, j] x[j] for i < rows.
void nyb_weight_multiply_one(float *y, const nyb_weight *w, size_t row0, size_t rows,
                             const nyb_weight_input *input);

// out = keep * out + in W'^T with W' the rows [row0, row0 + out.cols) of w; keep is 0 or 1.
//
//   panel  scratch of NYB_WEIGHT_PANEL * w->cols floats
void nyb_weight_multiply(nyb_mat out, nyb_mat in, const nyb_weight *w, size_t row0, float keep,
                         float *panel);

// Rows [first, first + count) of a weight.
typedef struct nyb_weight_rows {
    const nyb_weight *weight;
    size_t first, count;
} nyb_weight_rows;

// Packs panels [first, end) of these rows as the right operand of products, as nyb_gemm_pack()
// does it; `panel` as above.
void nyb_weight_pack(const nyb_gemm *g, uint32_t *to, const nyb_weight_rows *rows, size_t first,
                     size_t end, float *panel);

#endif // NYB_KERNELS_WEIGHT_H_
