#include "kernels/pack.h"

#include <assert.h>
#include <string.h>

enum {
    RUN = 8,    // codes that fill whole bytes: 8 codes are `bits` bytes
    CHUNK = 32, // codes that fill whole words
    TILE = 16,  // rows whose words fill one cache line of the transposed side
    MAX_BITS = 8,
};

// The lowest `bits` of each of a word's fields of `width` bits.
static inline uint64_t fields(unsigned bits, unsigned width)
{
    uint64_t mask = (1ull << bits) - 1;
    for (unsigned at = width; at < 64; at *= 2)
        mask |= mask << at;
    return mask;
}

// Of each two fields of `width` bits that hold `bits`, the upper one moves down to the lower one's end, or
// back.
static inline uint64_t close_up(uint64_t x, unsigned bits, unsigned width)
{
    const uint64_t low = fields(bits, 2 * width);
    return (x & low) | (x >> (width - bits) & low << bits);
}

static inline uint64_t spread(uint64_t x, unsigned bits, unsigned width)
{
    const uint64_t low = fields(bits, 2 * width);
    return (x & low) | (x & low << bits) << (width - bits);
}

// Eight codes of a byte each move together, then their pairs, then those' pairs. Inlined with a
// constant `bits`, so that shifts and masks become immediate.
static inline void pack_runs(unsigned char *to, const uint8_t *codes, size_t runs, unsigned bits)
{
    for (size_t r = 0; r < runs; r++, codes += RUN, to += bits) {
        uint64_t all;
        memcpy(&all, codes, RUN);
        all = close_up(close_up(close_up(all, bits, 8), 2 * bits, 16), 4 * bits, 32);
        memcpy(to, &all, bits);
    }
}

static inline void unpack_runs(uint8_t *codes, const unsigned char *from, size_t runs,
                               unsigned bits)
{
    for (size_t r = 0; r < runs; r++, codes += RUN, from += bits) {
        uint64_t all = 0;
        // Byte by byte: a copy of 3 bytes through memory would stall on its own stores.
        for (unsigned k = 0; k < bits; k++)
            all |= (uint64_t) from[k] << (8 * k);
        all = spread(spread(spread(all, 4 * bits, 32), 2 * bits, 16), bits, 8);
        memcpy(codes, &all, RUN);
    }
}

static void pack_many(unsigned char *to, const uint8_t *codes, size_t runs, unsigned bits)
{
    switch (bits) {
    case 2:
        pack_runs(to, codes, runs, 2);
        break;
    case 3:
        pack_runs(to, codes, runs, 3);
        break;
    case 4:
        pack_runs(to, codes, runs, 4);
        break;
    case 8:
        memcpy(to, codes, runs * RUN);
        break;
    default:
        pack_runs(to, codes, runs, bits);
    }
}

static void unpack_many(uint8_t *codes, const unsigned char *from, size_t runs, unsigned bits)
{
    switch (bits) {
    case 2:
        unpack_runs(codes, from, runs, 2);
        break;
    case 3:
        unpack_runs(codes, from, runs, 3);
        break;
    case 4:
        unpack_runs(codes, from, runs, 4);
        break;
    case 8:
        memcpy(codes, from, runs * RUN);
        break;
    default:
        unpack_runs(codes, from, runs, bits);
    }
}

void nyb_pack_row(void *words, const uint8_t *codes, size_t n, unsigned bits)
{
    assert(bits >= 1 && bits <= MAX_BITS);
    unsigned char *const to = words;
    const size_t runs = n / RUN, left = n % RUN, done = runs * bits;

    pack_many(to, codes, runs, bits);
    memset(to + done, 0, nyb_pack_words(n, bits) * 4 - done);
    if (left) {
        uint8_t tail[RUN] = {0};
        unsigned char packed[MAX_BITS];
        memcpy(tail, codes + runs * RUN, left);
        pack_many(packed, tail, 1, bits);
        memcpy(to + done, packed, (left * bits + 7) / 8);
    }
}

void nyb_unpack_row(uint8_t *codes, const void *words, size_t n, unsigned bits)
{
    assert(bits >= 1 && bits <= MAX_BITS);
    const unsigned char *const from = words;
    const size_t runs = n / RUN, left = n % RUN;

    unpack_many(codes, from, runs, bits);
    if (left) {
        uint8_t tail[RUN];
        unsigned char packed[MAX_BITS] = {0};
        memcpy(packed, from + runs * bits, (left * bits + 7) / 8);
        unpack_many(tail, packed, 1, bits);
        memcpy(codes + runs * RUN, tail, left);
    }
}

// One tile of rows from row0 on: chunk by chunk, so that the words of a chunk go to whole lines.
static void pack_tile(unsigned char *words, const uint8_t *codes, size_t row0, size_t rows,
                      size_t cols, unsigned bits)
{
    const size_t row1 = rows - row0 < TILE ? rows : row0 + TILE;
    for (size_t col = 0; col < cols; col += CHUNK, words += rows * bits * 4) {
        const size_t n = cols - col < CHUNK ? cols - col : CHUNK;
        for (size_t row = row0; row < row1; row++) {
            unsigned char packed[MAX_BITS * 4];
            nyb_pack_row(packed, codes + row * cols + col, n, bits);
            for (size_t w = 0; w < nyb_pack_words(n, bits); w++)
                memcpy(words + (w * rows + row) * 4, packed + w * 4, 4);
        }
    }
}

static void unpack_tile(uint8_t *codes, const unsigned char *words, size_t row0, size_t rows,
                        size_t cols, unsigned bits)
{
    const size_t row1 = rows - row0 < TILE ? rows : row0 + TILE;
    for (size_t col = 0; col < cols; col += CHUNK, words += rows * bits * 4) {
        const size_t n = cols - col < CHUNK ? cols - col : CHUNK;
        for (size_t row = row0; row < row1; row++) {
            unsigned char packed[MAX_BITS * 4];
            for (size_t w = 0; w < nyb_pack_words(n, bits); w++)
                memcpy(packed + w * 4, words + (w * rows + row) * 4, 4);
            nyb_unpack_row(codes + row * cols + col, packed, n, bits);
        }
    }
}

void nyb_pack_down(void *words, const uint8_t *codes, size_t rows, size_t cols, unsigned bits)
{
    for (size_t row = 0; row < rows; row += TILE)
        pack_tile(words, codes, row, rows, cols, bits);
}

void nyb_unpack_down(uint8_t *codes, const void *words, size_t rows, size_t cols, unsigned bits)
{
    for (size_t row = 0; row < rows; row += TILE)
        unpack_tile(codes, words, row, rows, cols, bits);
}

void nyb_transpose_u8(uint8_t *dst, const uint8_t *src, size_t rows, size_t cols)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t col = 0; col < cols; col++)
            dst[col * rows + row] = src[row * cols + col];
    }
}
