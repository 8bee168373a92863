// pack.h - codes of 1 to 8 bits as a dense little-endian bit stream in 32-bit words: code i takes
// the bits [bits * i, bits * (i + 1)) of its row. 32 codes fill `bits` words; a row that ends
// inside a word ends with zero bits.
#ifndef NYB_KERNELS_PACK_H_
#define NYB_KERNELS_PACK_H_

#include <stddef.h>
#include <stdint.h>

// Words of n codes; n * bits must not overflow.
static inline size_t nyb_pack_words(size_t n, unsigned bits)
{
    return n / 32 * bits + (n % 32 * bits + 31) / 32;
}

// Packs n codes, each below 2^bits, into nyb_pack_words(n, bits) words, which may be misaligned.
void nyb_pack_row(void *words, const uint8_t *codes, size_t n, unsigned bits);

// The inverse. Bits behind the last code are not looked at.
void nyb_unpack_row(uint8_t *codes, const void *words, size_t n, unsigned bits);

// Packs each row of codes [rows, cols] and stores the words transposed, [words of cols, rows].
void nyb_pack_down(void *words, const uint8_t *codes, size_t rows, size_t cols, unsigned bits);

// The inverse.
void nyb_unpack_down(uint8_t *codes, const void *words, size_t rows, size_t cols, unsigned bits);

// dst [cols, rows] receives the transpose of src [rows, cols].
void nyb_transpose_u8(uint8_t *dst, const uint8_t *src, size_t rows, size_t cols);

#endif // NYB_KERNELS_PACK_H_
