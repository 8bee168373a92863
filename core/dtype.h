// dtype.h - conversion between f32 and the storage types. Narrowing rounds to nearest, ties to
// even; NaN stays NaN; f16 and E5M2 overflow to infinity. E4M3FN has no infinity and saturates:
// whatever is larger than 448 becomes 448, infinities too.
#ifndef NYB_CORE_DTYPE_H_
#define NYB_CORE_DTYPE_H_

#include <string.h>

#include "core/status.h"
#include "nybble/tensor.h"

static inline uint32_t nyb_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float nyb_f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline float nyb_f32_of_bf16(uint16_t half)
{
    return nyb_f32_of_bits((uint32_t) half << 16);
}

static inline uint16_t nyb_bf16_of_f32(float value)
{
    const uint32_t bits = nyb_f32_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t) (bits >> 16 | 0x40); // quiet NaN, sign and payload kept
    return (uint16_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float nyb_f32_of_f16(uint16_t half);
uint16_t nyb_f16_of_f32(float value);

// NYB_F8_E4M3 is E4M3FN. A NaN narrows to all ones below its sign, in both types.
float nyb_f32_of_e4m3(uint8_t code);
uint8_t nyb_e4m3_of_f32(float value);
float nyb_f32_of_e5m2(uint8_t code);
uint8_t nyb_e5m2_of_f32(float value);

// A power of two, or NaN.
float nyb_f32_of_e8m0(uint8_t code);

// Whether this is a type that weights may have as they are: f32, f16, bf16.
bool nyb_dtype_is_float(nyb_dtype dtype);

// Whether this is a type whose values need a scale beside them: E4M3FN, E5M2.
bool nyb_dtype_is_float8(nyb_dtype dtype);

// n values of `dtype`, which may be misaligned, into dst. dtype is f32, f16, bf16 or a float8.
void nyb_widen(float *dst, const void *src, nyb_dtype dtype, size_t n);

// n values into storage of `dtype` (f32, f16, bf16 or a float8), which may be misaligned.
void nyb_narrow(void *dst, nyb_dtype dtype, const float *src, size_t n);

// The nearest value of `dtype` (f32, f16, bf16 or a float8) to `value`, as f32.
float nyb_round_to(float value, nyb_dtype dtype);

#endif // NYB_CORE_DTYPE_H_
