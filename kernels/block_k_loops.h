// block_k_loops.h - reading and packing of the K types: blocks of 256 values whose 16 or 8 parts
// have scales of their own, stored as small integers times an f16. Included once by each level.
#ifndef NYB_KERNELS_BLOCK_K_LOOPS_H_
#define NYB_KERNELS_BLOCK_K_LOOPS_H_

#include "kernels/block_loops.h"

enum { K_VALUES = 256 };

// The 6-bit scale and minimum of part j of 8 in Q4_K and Q5_K.
static inline void get_scale_min(const unsigned char *s, size_t j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

static inline void put_scale_min(unsigned char *s, size_t j, int scale, int min)
{
    if (j < 4) {
        s[j] = (unsigned char) scale;
        s[j + 4] = (unsigned char) min;
    } else {
        s[j + 4] = (unsigned char) ((scale & 15) | (min & 15) << 4);
        s[j - 4] = (unsigned char) (s[j - 4] | (scale >> 4) << 6);
        s[j] = (unsigned char) (s[j] | (min >> 4) << 6);
    }
}

// The 6-bit scale of part j of 16 in Q3_K, in [-32, 32).
static inline int get_scale_q3(const unsigned char *s, size_t j)
{
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}

static inline void put_scale_q3(unsigned char *s, size_t j, int scale)
{
    const int l = scale + 32;
    s[j % 8] = (unsigned char) (s[j % 8] | (l & 15) << (j < 8 ? 0 : 4));
    s[8 + j % 4] = (unsigned char) (s[8 + j % 4] | (l >> 4) << 2 * (j / 4));
}

// Two bits a value: of each half of the block, value 32 j + l is bits 2 j of byte l.
static inline void get_pairs(int *q, const unsigned char *at)
{
    for (size_t h = 0; h < 2; h++)
        for (size_t j = 0; j < 4; j++)
            for (size_t l = 0; l < 32; l++)
                q[128 * h + 32 * j + l] = at[32 * h + l] >> 2 * j & 3;
}

static inline void put_pairs(unsigned char *at, const int *q)
{
    for (size_t h = 0; h < 2; h++) {
        for (size_t l = 0; l < 32; l++) {
            const int *const from = q + 128 * h + l;
            at[32 * h + l] = (unsigned char) ((from[0] & 3) | (from[32] & 3) << 2 |
                                              (from[64] & 3) << 4 | (from[96] & 3) << 6);
        }
    }
}

// Nibbles of Q4_K and Q5_K: of each quarter, the first 32 values are the low ones.
static inline void get_quarters(int *q, const unsigned char *at)
{
    for (size_t k = 0; k < 4; k++) {
        for (size_t l = 0; l < 32; l++) {
            q[64 * k + l] = at[32 * k + l] & 15;
            q[64 * k + 32 + l] = at[32 * k + l] >> 4;
        }
    }
}

static inline void put_quarters(unsigned char *at, const int *q)
{
    for (size_t k = 0; k < 4; k++)
        for (size_t l = 0; l < 32; l++)
            at[32 * k + l] =
                (unsigned char) ((q[64 * k + l] & 15) | (q[64 * k + 32 + l] & 15) << 4);
}

// The codes of a whole block, in [0, 2^bits), put behind its scales or before them.
static inline void lay_q5_k(unsigned char *at, const int *q)
{
    memset(at + 16, 0, 32);
    for (size_t j = 0; j < 8; j++)
        for (size_t l = 0; l < 32; l++)
            at[16 + l] = (unsigned char) (at[16 + l] | (q[32 * j + l] >> 4) << j);
    put_quarters(at + 48, q);
}

static inline void lay_q3_k(unsigned char *at, const int *q)
{
    memset(at, 0, 32);
    for (size_t j = 0; j < 8; j++)
        for (size_t l = 0; l < 32; l++)
            at[l] = (unsigned char) (at[l] | (q[32 * j + l] >> 2) << j);
    put_pairs(at + 32, q);
}

// d scale q - dmin min, for eight parts of 32 values.
static inline void spread_k(float *out, const int *q, const unsigned char *head)
{
    const float d = half_at(head), low = half_at(head + 2);
    for (size_t j = 0; j < 8; j++) {
        int scale, min;
        get_scale_min(head + 4, j, &scale, &min);
        const float step = d * (float) scale, shift = low * (float) min;
        for (size_t l = 0; l < 32; l++)
            out[32 * j + l] = step * (float) q[32 * j + l] - shift;
    }
}

static void get_q4_k(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 144, out += K_VALUES) {
        int q[K_VALUES];
        get_quarters(q, at + 16);
        spread_k(out, q, at);
    }
}

static inline void codes_q5_k(int *q, const unsigned char *at)
{
    get_quarters(q, at + 48);
    for (size_t j = 0; j < 8; j++)
        for (size_t l = 0; l < 32; l++)
            q[32 * j + l] |= (at[16 + l] >> j & 1) << 4;
}

static void get_q5_k(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 176, out += K_VALUES) {
        int q[K_VALUES];
        codes_q5_k(q, at);
        spread_k(out, q, at);
    }
}

static void get_q2_k(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 84, out += K_VALUES) {
        const float d = half_at(at + 80), low = half_at(at + 82);
        int q[K_VALUES];
        get_pairs(q, at + 16);
        for (size_t j = 0; j < 16; j++) {
            const float step = d * (float) (at[j] & 15), shift = low * (float) (at[j] >> 4);
            for (size_t l = 0; l < 16; l++)
                out[16 * j + l] = step * (float) q[16 * j + l] - shift;
        }
    }
}

static inline void codes_q3_k(int *q, const unsigned char *at)
{
    get_pairs(q, at + 32);
    for (size_t j = 0; j < 8; j++)
        for (size_t l = 0; l < 32; l++)
            q[32 * j + l] -= at[l] >> j & 1 ? 0 : 4;
}

static void get_q3_k(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 110, out += K_VALUES) {
        const float d = half_at(at + 108);
        int q[K_VALUES];
        codes_q3_k(q, at);
        for (size_t j = 0; j < 16; j++) {
            const float step = d * (float) get_scale_q3(at + 96, j);
            for (size_t l = 0; l < 16; l++)
                out[16 * j + l] = step * (float) q[16 * j + l];
        }
    }
}

// Six bits a value: of each half, the low nibbles of bytes l and 32 + l, then their high ones,
// with two bits more from byte l of qh.
static inline void get_sixes(int *q, const unsigned char *low, const unsigned char *high)
{
    for (size_t h = 0; h < 2; h++) {
        int *const to = q + 128 * h;
        const unsigned char *const ql = low + 64 * h, *const qh = high + 32 * h;
        for (size_t l = 0; l < 32; l++) {
            to[l] = ((ql[l] & 15) | (qh[l] & 3) << 4) - 32;
            to[l + 32] = ((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4) - 32;
            to[l + 64] = (ql[l] >> 4 | (qh[l] >> 4 & 3) << 4) - 32;
            to[l + 96] = (ql[l + 32] >> 4 | (qh[l] >> 6) << 4) - 32;
        }
    }
}

// q in [0, 64).
static inline void put_sixes(unsigned char *low, unsigned char *high, const int *q)
{
    for (size_t h = 0; h < 2; h++) {
        const int *const from = q + 128 * h;
        unsigned char *const ql = low + 64 * h, *const qh = high + 32 * h;
        for (size_t l = 0; l < 32; l++) {
            const int a = from[l], b = from[l + 32], c = from[l + 64], d = from[l + 96];
            ql[l] = (unsigned char) ((a & 15) | (c & 15) << 4);
            ql[l + 32] = (unsigned char) ((b & 15) | (d & 15) << 4);
            qh[l] = (unsigned char) (a >> 4 | (b >> 4) << 2 | (c >> 4) << 4 | (d >> 4) << 6);
        }
    }
}

static void get_q6_k(float *out, const void *blocks, size_t count)
{
    const unsigned char *at = blocks;
    for (; count > 0; count--, at += 210, out += K_VALUES) {
        const float d = half_at(at + 208);
        int8_t scales[16];
        int q[K_VALUES];
        memcpy(scales, at + 192, sizeof(scales));
        get_sixes(q, at, at + 128);
        for (size_t j = 0; j < 16; j++) {
            const float step = d * (float) scales[j];
            for (size_t l = 0; l < 16; l++)
                out[16 * j + l] = step * (float) q[16 * j + l];
        }
    }
}

#endif // NYB_KERNELS_BLOCK_K_LOOPS_H_
