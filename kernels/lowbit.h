// lowbit.h - a quantised weight as products read it: codes of 2, 3, 4 or 8 bits that stay packed.
//
// Layout. Sixteen rows make a tile; a tile's columns follow each other in places, group after
// group, and sixteen 32-bit words stand side by side, one for each row. A unit is the fewest
// places whose codes fill whole words:
//
//     bits  places  words   code of place 4 k + b, b < 4, in byte b of the row's words
//     2     16      1       bits 2 k and 2 k + 1
//     3     32      3       k < 6: word k / 2, bits 3 (k % 2) to 3 (k % 2) + 2
//                           k = 6: bits 6, 7 of word 0, and bit 6 of word 2
//                           k = 7: bits 6, 7 of word 1, and bit 7 of word 2
//     4     8       1       bits 4 k to 4 k + 3
//     8     4       1       the byte
//
// So a shift and a mask leave four columns of sixteen rows as the bytes of a register. Groups that
// do not fill their last unit are filled up with places without a column, whose input is 0. Where
// the columns of a group do not lie together they are brought together: the input is put into the
// order of the places once a product.
//
// Products. Codes are integers, so the input is made integer too: each run of at most 256 places
// of a group gets a step, its largest magnitude / (2^22 - 1), and its values are rounded to
// multiples of the step, written as three signed bytes. The sums over a run are then exact and
// take three 8-bit products a weight, which is several times as fast as widening codes to f32; the
// rounding, 2^-23 of the run's largest value, is as fine as that of sums in f32. With one byte
// (step: largest / 127) a product costs a third of that, and digits: it is there to be chosen.
#ifndef NYB_KERNELS_LOWBIT_H_
#define NYB_KERNELS_LOWBIT_H_

#include "nybble/qweight.h"

enum { NYB_LOWBIT_ROWS = 16 }; // of a tile

typedef struct nyb_lowbit {
    size_t rows, cols, groups;
    size_t places;         // columns, and places without one
    unsigned bits;         // 2, 3, 4 or 8
    nyb_dtype scale_dtype; // f32, f16 or bf16
    const uint32_t *words; // [tiles, units, words of a unit, 16]
    const void *scales;    // [tiles, groups, 16] of scale_dtype
    const uint8_t *zeros;  // [tiles, groups, 16]; NULL: all are 2^(bits - 1)
    const uint32_t *first; // [groups + 1] the first place of each group
    const uint32_t *order; // [places] the column of each, UINT32_MAX: none; NULL: column j is at j
    size_t runs;           // of all groups
    size_t bytes;          // of the arrays
    void *memory;
} nyb_lowbit;

// Bytes that nyb_lowbit_init() takes at most for a weight of this shape whose groups have
// group_size columns (0: all) in any order. SIZE_MAX when they cannot be counted.
size_t nyb_lowbit_bytes(size_t rows, size_t cols, unsigned bits, size_t group_size);

// Packs q, which is not needed afterwards.
//
// NYB_E_NOMEM  out is zeroed.
NYB_NODISCARD nyb_status nyb_lowbit_init(nyb_lowbit *out, const nyb_qweight *q, nyb_err *err);
void nyb_lowbit_clear(nyb_lowbit *m); // zeroed is fine

enum {
    NYB_LOWBIT_RUN = 256, // places that share a step of the input
    NYB_LOWBIT_FINE = 3,  // bytes of an input value
    NYB_LOWBIT_COARSE = 1,
};

// The input of a product, made once for all rows.
typedef struct nyb_lowbit_input {
    unsigned digits;      // NYB_LOWBIT_FINE or NYB_LOWBIT_COARSE
    const float *steps;   // [runs] what a value of 1 stands for
    const int32_t *sums;  // [runs, digits] of each digit over a run
    const int8_t *values; // [places / 4, digits, 4] value = sum of 256^d digit d
} nyb_lowbit_input;

size_t nyb_lowbit_input_bytes(const nyb_lowbit *m, unsigned digits);

// Inputs that were rounded to bytes, for products that are sums of whole numbers as an 8-bit matrix
// unit makes them. At most NYB_LOWBIT_INT8_COLS columns: then no sum leaves 32 bits.
enum { NYB_LOWBIT_INT8_COLS = 65536 };

typedef struct nyb_lowbit_int8 {
    size_t count;         // inputs
    const float *steps;   // [count] what a value of 1 stands for
    const int32_t *sums;  // [count, groups] of the values of a group
    const int8_t *values; // [count, places] 0 where there is no column
} nyb_lowbit_int8;

size_t nyb_lowbit_int8_bytes(const nyb_lowbit *m, size_t count);

// Lays x [count, cols] of bytes in [-127, 127] out for m in `memory`, aligned to 4 bytes, of
// nyb_lowbit_int8_bytes(). `steps` has to stay.
nyb_lowbit_int8 nyb_lowbit_int8_input(const nyb_lowbit *m, size_t count, const int8_t *x,
                                      const float *steps, void *memory);

// Every level of one operation gives the same bits: sums of integers are exact, what follows goes
// by a fixed order, and nothing is fused. row0 is a multiple of NYB_LOWBIT_ROWS.
typedef struct nyb_lowbit_ops {
    // Lays the input for x [cols] out in `memory`, aligned to 4 bytes, of
    // nyb_lowbit_input_bytes(). A NaN or an infinity makes all products NaN. A run whose largest
    // value is below 1e-30 counts as zeros.
    nyb_lowbit_input (*input)(const nyb_lowbit *m, unsigned digits, void *memory, const float *x);

    // y[i] = sum over j of w[row0 + i, j] x[j], i < rows.
    void (*multiply)(float *y, const nyb_lowbit *m, size_t row0, size_t rows,
                     const nyb_lowbit_input *input);

    // y(t, i) = step_t * sum over groups of scale * (float) (sum over its columns of
    // (code - zero) * value) for weight row row0 + i; the inner sum is exact, what is outside is f32.
    void (*multiply_int8)(nyb_mat y, const nyb_lowbit *m, size_t row0,
                          const nyb_lowbit_int8 *input);

    // The weights themselves, transposed: to[j * stride + i] = w[row0 + i, j] for i < rows, j < cols,
    // with the very bits of nyb_qweight_dequantize().
    void (*dequantize)(float *to, size_t stride, const nyb_lowbit *m, size_t row0, size_t rows);
} nyb_lowbit_ops;

// The operations for a CPU with these features (core/cpu.h).
const nyb_lowbit_ops *nyb_lowbit_ops_for(unsigned cpu);

// Those for this machine.
const nyb_lowbit_ops *nyb_lowbit_ops_get(void);

#endif // NYB_KERNELS_LOWBIT_H_
