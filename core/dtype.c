#include "core/dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[NYB_DTYPE_COUNT] = {
    [NYB_F32] = {"F32", 4},         [NYB_F16] = {"F16", 2},         [NYB_BF16] = {"BF16", 2},
    [NYB_F64] = {"F64", 8},         [NYB_F8_E4M3] = {"F8_E4M3", 1}, [NYB_F8_E5M2] = {"F8_E5M2", 1},
    [NYB_F8_E8M0] = {"F8_E8M0", 1}, [NYB_I8] = {"I8", 1},           [NYB_U8] = {"U8", 1},
    [NYB_I16] = {"I16", 2},         [NYB_U16] = {"U16", 2},         [NYB_I32] = {"I32", 4},
    [NYB_U32] = {"U32", 4},         [NYB_I64] = {"I64", 8},         [NYB_U64] = {"U64", 8},
    [NYB_BOOL] = {"BOOL", 1},
};

static const struct {
    const char *name;
    nyb_block_size size;
} blocks[NYB_DTYPE_END - NYB_DTYPE_COUNT] = {
    [NYB_Q4_0 - NYB_DTYPE_COUNT] = {"Q4_0", {32, 18}},
    [NYB_Q4_1 - NYB_DTYPE_COUNT] = {"Q4_1", {32, 20}},
    [NYB_Q5_0 - NYB_DTYPE_COUNT] = {"Q5_0", {32, 22}},
    [NYB_Q5_1 - NYB_DTYPE_COUNT] = {"Q5_1", {32, 24}},
    [NYB_Q8_0 - NYB_DTYPE_COUNT] = {"Q8_0", {32, 34}},
    [NYB_Q2_K - NYB_DTYPE_COUNT] = {"Q2_K", {256, 84}},
    [NYB_Q3_K - NYB_DTYPE_COUNT] = {"Q3_K", {256, 110}},
    [NYB_Q4_K - NYB_DTYPE_COUNT] = {"Q4_K", {256, 144}},
    [NYB_Q5_K - NYB_DTYPE_COUNT] = {"Q5_K", {256, 176}},
    [NYB_Q6_K - NYB_DTYPE_COUNT] = {"Q6_K", {256, 210}},
    [NYB_IQ4_NL - NYB_DTYPE_COUNT] = {"IQ4_NL", {32, 18}},
    [NYB_MXFP4 - NYB_DTYPE_COUNT] = {"MXFP4", {32, 17}},
};

size_t nyb_dtype_bytes(nyb_dtype dtype)
{
    return (unsigned) dtype < NYB_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

nyb_block_size nyb_dtype_block(nyb_dtype dtype)
{
    if (nyb_dtype_is_block(dtype))
        return blocks[dtype - NYB_DTYPE_COUNT].size;
    return (nyb_block_size){1, nyb_dtype_bytes(dtype)};
}

const char *nyb_dtype_name(nyb_dtype dtype)
{
    if (nyb_dtype_is_block(dtype))
        return blocks[dtype - NYB_DTYPE_COUNT].name;
    return (unsigned) dtype < NYB_DTYPE_COUNT ? dtypes[dtype].name : "?";
}

bool nyb_dtype_by_name(const char *name, nyb_dtype *out)
{
    for (unsigned i = 0; i < NYB_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = (nyb_dtype) i;
            return true;
        }
    }
    return false;
}

bool nyb_dtype_is_float(nyb_dtype dtype)
{
    return dtype == NYB_F32 || dtype == NYB_F16 || dtype == NYB_BF16;
}

bool nyb_dtype_is_float8(nyb_dtype dtype)
{
    return dtype == NYB_F8_E4M3 || dtype == NYB_F8_E5M2;
}

float nyb_f32_of_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t) (half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;

    if (exponent == 0) // zero or subnormal: mantissa * 2^-24 is exact in f32
        return nyb_f32_of_bits(nyb_f32_bits((float) mantissa * 0x1p-24f) | sign);
    if (exponent == 31)
        return nyb_f32_of_bits(sign | 0x7f800000 | mantissa << 13);
    return nyb_f32_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t nyb_f16_of_f32(float value)
{
    const uint32_t bits = nyb_f32_bits(value);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;

    if (magnitude > 0x7f800000)
        return (uint16_t) (sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    if (magnitude >= 0x477ff000) // 65520 and above round to infinity
        return (uint16_t) (sign | 0x7c00);
    if (magnitude < 0x38800000) {
        // Below 2^-14: adding 0.5 moves the half's last bit to the float's last bit, and the
        // addition rounds to nearest even.
        const float shifted = nyb_f32_of_bits(magnitude) + 0.5f;
        return (uint16_t) (sign | (nyb_f32_bits(shifted) - 0x3f000000));
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t) (sign | (rounded - 0x38000000) >> 13);
}

float nyb_f32_of_e4m3(uint8_t code)
{
    const uint32_t sign = (uint32_t) (code & 0x80) << 24;
    const uint32_t exponent = code >> 3 & 0xf, mantissa = code & 7;

    if ((code & 0x7f) == 0x7f)
        return nyb_f32_of_bits(sign | 0x7fc00000);
    if (exponent == 0) // zero or subnormal: mantissa * 2^-9 is exact in f32
        return nyb_f32_of_bits(nyb_f32_bits((float) mantissa * 0x1p-9f) | sign);
    return nyb_f32_of_bits(sign | (exponent + 120) << 23 | mantissa << 20);
}

uint8_t nyb_e4m3_of_f32(float value)
{
    const uint32_t bits = nyb_f32_bits(value);
    const uint32_t sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;

    if (magnitude > 0x7f800000)
        return (uint8_t) (sign | 0x7f);
    if (magnitude >= 0x43e00000) // 448 and above
        return (uint8_t) (sign | 0x7e);
    if (magnitude < 0x3c800000) {
        // Below 2^-6: adding 2^14 moves the last bit, 2^-9, to the float's last bit, and the
        // addition rounds to nearest even.
        const float shifted = nyb_f32_of_bits(magnitude) + 0x1p14f;
        return (uint8_t) (sign | (nyb_f32_bits(shifted) - 0x46800000));
    }
    const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
    return (uint8_t) (sign | (rounded - 0x3c000000) >> 20);
}

// E5M2 is the upper byte of a half.
float nyb_f32_of_e5m2(uint8_t code)
{
    return nyb_f32_of_f16((uint16_t) (code << 8));
}

uint8_t nyb_e5m2_of_f32(float value)
{
    const uint32_t bits = nyb_f32_bits(value);
    const uint32_t sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;

    if (magnitude > 0x7f800000)
        return (uint8_t) (sign | 0x7f);
    if (magnitude >= 0x47700000) // 61440 and above round to infinity
        return (uint8_t) (sign | 0x7c);
    if (magnitude < 0x38800000) { // below 2^-14, as for E4M3FN with 2^-16
        const float shifted = nyb_f32_of_bits(magnitude) + 0x1p7f;
        return (uint8_t) (sign | (nyb_f32_bits(shifted) - 0x43000000));
    }
    const uint32_t rounded = magnitude + 0xfffff + (magnitude >> 21 & 1);
    return (uint8_t) (sign | (rounded - 0x38000000) >> 21);
}

float nyb_f32_of_e8m0(uint8_t code)
{
    if (code == 0xff)
        return nyb_f32_of_bits(0x7fc00000);
    return code ? nyb_f32_of_bits((uint32_t) code << 23) : 0x1p-127f;
}

void nyb_widen(float *dst, const void *src, nyb_dtype dtype, size_t n)
{
    const unsigned char *const from = src;
    assert(nyb_dtype_is_float(dtype) || nyb_dtype_is_float8(dtype));

    if (dtype == NYB_F32) {
        memcpy(dst, src, n * sizeof(float));
        return;
    }
    if (nyb_dtype_is_float8(dtype)) {
        for (size_t i = 0; i < n; i++)
            dst[i] = dtype == NYB_F8_E4M3 ? nyb_f32_of_e4m3(from[i]) : nyb_f32_of_e5m2(from[i]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, sizeof(half));
        dst[i] = dtype == NYB_BF16 ? nyb_f32_of_bf16(half) : nyb_f32_of_f16(half);
    }
}

void nyb_narrow(void *dst, nyb_dtype dtype, const float *src, size_t n)
{
    unsigned char *const to = dst;
    assert(nyb_dtype_is_float(dtype) || nyb_dtype_is_float8(dtype));

    if (dtype == NYB_F32) {
        memcpy(dst, src, n * sizeof(float));
        return;
    }
    if (nyb_dtype_is_float8(dtype)) {
        for (size_t i = 0; i < n; i++)
            to[i] = dtype == NYB_F8_E4M3 ? nyb_e4m3_of_f32(src[i]) : nyb_e5m2_of_f32(src[i]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const uint16_t half = dtype == NYB_BF16 ? nyb_bf16_of_f32(src[i]) : nyb_f16_of_f32(src[i]);
        memcpy(to + 2 * i, &half, sizeof(half));
    }
}

float nyb_round_to(float value, nyb_dtype dtype)
{
    assert(nyb_dtype_is_float(dtype) || nyb_dtype_is_float8(dtype));
    if (dtype == NYB_BF16)
        return nyb_f32_of_bf16(nyb_bf16_of_f32(value));
    if (dtype == NYB_F16)
        return nyb_f32_of_f16(nyb_f16_of_f32(value));
    if (dtype == NYB_F8_E4M3)
        return nyb_f32_of_e4m3(nyb_e4m3_of_f32(value));
    if (dtype == NYB_F8_E5M2)
        return nyb_f32_of_e5m2(nyb_e5m2_of_f32(value));
    return value;
}
