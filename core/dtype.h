// dtype.h - conversion between f32 and the storage types. Narrowing rounds to nearest, ties to
// even; NaN stays NaN; f16 overflows to infinity.
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

// Whether nyb_widen() and nyb_narrow() take this type: f32, f16, bf16.
bool nyb_dtype_is_float(nyb_dtype dtype);

// n values of `dtype`, which may be misaligned, into dst. dtype is f32, f16 or bf16.
void nyb_widen(float *dst, const void *src, nyb_dtype dtype, size_t n);

// n values into storage of `dtype` (f32, f16 or bf16), which may be misaligned.
void nyb_narrow(void *dst, nyb_dtype dtype, const float *src, size_t n);

// The nearest value of `dtype` (f32, f16 or bf16) to `value`, as f32.
float nyb_round_to(float value, nyb_dtype dtype);

#endif // NYB_CORE_DTYPE_H_
