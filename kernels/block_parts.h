// block_parts.h - blocks taken apart into codes, steps and minima, and put together again. Included
// once by each level.
#ifndef NYB_KERNELS_BLOCK_PARTS_H_
#define NYB_KERNELS_BLOCK_PARTS_H_

#include "kernels/block_k_search.h"

// ---- Apart ------------------------------------------------------------------------------------

static inline void store_codes(uint8_t *codes, const int *q, size_t count, int zero)
{
    for (size_t i = 0; i < count; i++)
        codes[i] = (uint8_t) (q[i] + zero);
}

static void part_q4_0(uint8_t *codes, float *steps, float *mins, const void *block)
{
    int q[VALUES];
    (void) mins;
    get_nibbles(q, (const unsigned char *) block + 2);
    store_codes(codes, q, VALUES, 0);
    steps[0] = half_at(block);
}

static void part_q4_1(uint8_t *codes, float *steps, float *mins, const void *block)
{
    int q[VALUES];
    get_nibbles(q, (const unsigned char *) block + 4);
    store_codes(codes, q, VALUES, 0);
    steps[0] = half_at(block);
    mins[0] = -half_at((const unsigned char *) block + 2);
}

static void part_q5_0(uint8_t *codes, float *steps, float *mins, const void *block)
{
    const unsigned char *const at = block;
    int q[VALUES];
    (void) mins;
    codes_q5(q, at + 6, at + 2);
    store_codes(codes, q, VALUES, 0);
    steps[0] = half_at(at);
}

static void part_q5_1(uint8_t *codes, float *steps, float *mins, const void *block)
{
    const unsigned char *const at = block;
    int q[VALUES];
    codes_q5(q, at + 8, at + 4);
    store_codes(codes, q, VALUES, 0);
    steps[0] = half_at(at);
    mins[0] = -half_at(at + 2);
}

static void part_q8_0(uint8_t *codes, float *steps, float *mins, const void *block)
{
    const unsigned char *const at = block;
    (void) mins;
    for (size_t i = 0; i < VALUES; i++)
        codes[i] = at[2 + i] ^ 0x80;
    steps[0] = half_at(at);
}

static inline void part_eight(float *steps, float *mins, const unsigned char *head)
{
    const float d = half_at(head), low = half_at(head + 2);
    for (size_t j = 0; j < 8; j++) {
        int scale, min;
        get_scale_min(head + 4, j, &scale, &min);
        steps[j] = d * (float) scale;
        mins[j] = low * (float) min;
    }
}

static void part_q4_k(uint8_t *codes, float *steps, float *mins, const void *block)
{
    int q[K_VALUES];
    get_quarters(q, (const unsigned char *) block + 16);
    store_codes(codes, q, K_VALUES, 0);
    part_eight(steps, mins, block);
}

static void part_q5_k(uint8_t *codes, float *steps, float *mins, const void *block)
{
    int q[K_VALUES];
    codes_q5_k(q, block);
    store_codes(codes, q, K_VALUES, 0);
    part_eight(steps, mins, block);
}

static void part_q2_k(uint8_t *codes, float *steps, float *mins, const void *block)
{
    const unsigned char *const at = block;
    const float d = half_at(at + 80), low = half_at(at + 82);
    int q[K_VALUES];
    get_pairs(q, at + 16);
    store_codes(codes, q, K_VALUES, 0);
    for (size_t j = 0; j < 16; j++) {
        steps[j] = d * (float) (at[j] & 15);
        mins[j] = low * (float) (at[j] >> 4);
    }
}

static void part_q3_k(uint8_t *codes, float *steps, float *mins, const void *block)
{
    const unsigned char *const at = block;
    const float d = half_at(at + 108);
    int q[K_VALUES];
    (void) mins;
    codes_q3_k(q, at);
    store_codes(codes, q, K_VALUES, 4);
    for (size_t j = 0; j < 16; j++)
        steps[j] = d * (float) get_scale_q3(at + 96, j);
}

static void part_q6_k(uint8_t *codes, float *steps, float *mins, const void *block)
{
    const unsigned char *const at = block;
    const float d = half_at(at + 208);
    int8_t scales[16];
    int q[K_VALUES];
    (void) mins;
    memcpy(scales, at + 192, sizeof(scales));
    get_sixes(q, at, at + 128);
    store_codes(codes, q, K_VALUES, 32);
    for (size_t j = 0; j < 16; j++)
        steps[j] = d * (float) scales[j];
}

// ---- Together ---------------------------------------------------------------------------------

static inline bool join_half(unsigned char *at, float value)
{
    put_half(at, value);
    return half_at(at) == value;
}

static inline void load_codes(int *q, const uint8_t *codes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        q[i] = codes[i];
}

// Whether `unit` times whole numbers in [low, high] gives these values exactly.
static inline bool divides(const float *values, size_t count, int low, int high, float unit,
                           int *whole)
{
    for (size_t i = 0; i < count; i++) {
        whole[i] = nearest(values[i] / unit, low, high);
        if (unit * (float) whole[i] != values[i])
            return false;
    }
    return true;
}

// An f16 at `at` and whole numbers in [low, high] whose products are these values exactly; false:
// there are none.
static bool factor(unsigned char *at, int *whole, const float *values, size_t count, int low,
                   int high)
{
    float top = 0.0f;
    for (size_t i = 0; i < count; i++)
        top = fabsf(values[i]) > fabsf(top) ? values[i] : top;
    put_half(at, 0.0f);
    memset(whole, 0, count * sizeof(*whole));
    if (top == 0.0f)
        return true;
    for (int size = -low > high ? -low : high; size > 0; size--) {
        for (int sign = -1; sign <= 1; sign += 2) {
            const int trial = sign * size;
            if (trial < low || trial > high || !join_half(at, top / (float) trial))
                continue;
            if (divides(values, count, low, high, half_at(at), whole))
                return true;
        }
    }
    return false;
}

static bool join_q4_0(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    int q[VALUES];
    (void) mins;
    load_codes(q, codes, VALUES);
    put_nibbles((unsigned char *) block + 2, q);
    return join_half(block, steps[0]);
}

static bool join_q4_1(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    int q[VALUES];
    load_codes(q, codes, VALUES);
    put_nibbles(at + 4, q);
    return join_half(at, steps[0]) && join_half(at + 2, -mins[0]);
}

static bool join_q5_0(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    int q[VALUES];
    (void) mins;
    load_codes(q, codes, VALUES);
    put_fifth(at + 2, q);
    put_nibbles(at + 6, q);
    return join_half(at, steps[0]);
}

static bool join_q5_1(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    int q[VALUES];
    load_codes(q, codes, VALUES);
    put_fifth(at + 4, q);
    put_nibbles(at + 8, q);
    return join_half(at, steps[0]) && join_half(at + 2, -mins[0]);
}

static bool join_q8_0(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    (void) mins;
    for (size_t i = 0; i < VALUES; i++)
        at[2 + i] = codes[i] ^ 0x80;
    return join_half(at, steps[0]);
}

static inline bool join_eight(unsigned char *head, const float *steps, const float *mins)
{
    int scales[8], shifts[8];
    if (!factor(head, scales, steps, 8, 0, 63) || !factor(head + 2, shifts, mins, 8, 0, 63))
        return false;
    memset(head + 4, 0, 12);
    for (size_t j = 0; j < 8; j++)
        put_scale_min(head + 4, j, scales[j], shifts[j]);
    return true;
}

static bool join_q4_k(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    int q[K_VALUES];
    load_codes(q, codes, K_VALUES);
    put_quarters((unsigned char *) block + 16, q);
    return join_eight(block, steps, mins);
}

static bool join_q5_k(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    int q[K_VALUES];
    load_codes(q, codes, K_VALUES);
    lay_q5_k(block, q);
    return join_eight(block, steps, mins);
}

static bool join_q2_k(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    int q[K_VALUES], scales[16], shifts[16];
    load_codes(q, codes, K_VALUES);
    put_pairs(at + 16, q);
    if (!factor(at + 80, scales, steps, 16, 0, 15) || !factor(at + 82, shifts, mins, 16, 0, 15))
        return false;
    for (size_t j = 0; j < 16; j++)
        at[j] = (unsigned char) (scales[j] | shifts[j] << 4);
    return true;
}

static bool join_q3_k(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    int q[K_VALUES], scales[16];
    (void) mins;
    load_codes(q, codes, K_VALUES);
    lay_q3_k(at, q);
    memset(at + 96, 0, 12);
    if (!factor(at + 108, scales, steps, 16, -32, 31))
        return false;
    for (size_t j = 0; j < 16; j++)
        put_scale_q3(at + 96, j, scales[j]);
    return true;
}

static bool join_q6_k(void *block, const uint8_t *codes, const float *steps, const float *mins)
{
    unsigned char *const at = block;
    int q[K_VALUES], scales[16];
    (void) mins;
    load_codes(q, codes, K_VALUES);
    put_sixes(at, at + 128, q);
    if (!factor(at + 208, scales, steps, 16, -128, 127))
        return false;
    for (size_t j = 0; j < 16; j++)
        at[192 + j] = (unsigned char) scales[j];
    return true;
}

#endif // NYB_KERNELS_BLOCK_PARTS_H_
