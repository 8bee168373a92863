#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "kernels/blocks.h"

enum { VALUES = 2048, GUARD = 64, MOST_BYTES = 3 * VALUES, LEVELS = 3 };

static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512};

static bool has(unsigned level)
{
    return (nyb_cpu_detected() & level) == level;
}

// Values of very different sizes, with ties, zeros and whole blocks of one value.
static void fill(float *x, uint64_t *seed)
{
    for (size_t i = 0; i < VALUES; i++) {
        const size_t kind = i / 256 % 8;
        x[i] = test_uniform(seed);
        if (kind == 1)
            x[i] *= 1e-9f;
        if (kind == 2)
            x[i] = i % 3 ? 0.0f : x[i];
        if (kind == 3)
            x[i] = roundf(8.0f * x[i]) / 8.0f;
        if (kind == 4)
            x[i] = 0.0f;
        if (kind == 5)
            x[i] = 0.75f + 0.1f * x[i];
        if (kind == 6)
            x[i] *= 1e-40f;
    }
}

static void levels_give_the_same_bits(void **state)
{
    (void) state;
    static float x[VALUES], weights[VALUES], want[VALUES + GUARD], got[VALUES + GUARD];
    static unsigned char a[MOST_BYTES], b[MOST_BYTES];
    size_t compared = 0;
    for (size_t l = 1; l < LEVELS; l++) {
        uint64_t seed = 5;
        for (int t = NYB_DTYPE_COUNT; t < NYB_DTYPE_END && has(levels[l]); t++) {
            const nyb_block_codec *const ref = nyb_block_codec_for((nyb_dtype) t, 0);
            const nyb_block_codec *const fast = nyb_block_codec_for((nyb_dtype) t, levels[l]);
            const nyb_block_size size = nyb_dtype_block((nyb_dtype) t);
            const size_t count = VALUES / size.values;
            assert_int_equal(ref->dtype, t);
            fill(x, &seed);
            memset(a, 0xa5, sizeof(a));
            memset(b, 0xa5, sizeof(b));
            for (size_t i = 0; !ref->quantize && i < count * size.bytes; i++)
                a[i] = b[i] = (unsigned char) (i * 37 % 111);
            for (size_t i = 0; i < VALUES; i++)
                weights[i] = i % 7 ? fabsf(test_uniform(&seed)) : 0.0f;
            if (ref->quantize) {
                ref->quantize_weighted(a, x, weights, count);
                fast->quantize_weighted(b, x, weights, count);
                assert_memory_equal(a, b, sizeof(a));
                ref->quantize(a, x, count);
                fast->quantize(b, x, count);
            }
            assert_memory_equal(a, b, sizeof(a));
            memset(want, 0xa5, sizeof(want));
            memset(got, 0xa5, sizeof(got));
            ref->dequantize(want, a, count);
            fast->dequantize(got, a, count);
            assert_memory_equal(want, got, sizeof(want));
            compared++;
        }
    }
    print_message("%zu pairs of codecs compared\n", compared);
}

// A block of zeros, and values on the grid, come back as they were.
static void grids_are_fixed_points(void **state)
{
    (void) state;
    static float x[VALUES], once[VALUES], twice[VALUES];
    static unsigned char a[MOST_BYTES];
    uint64_t seed = 11;
    for (int t = NYB_Q4_0; t <= NYB_Q8_0; t++) {
        const nyb_block_codec *const c = nyb_block_codec_get((nyb_dtype) t);
        const size_t count = VALUES / nyb_dtype_block((nyb_dtype) t).values;
        fill(x, &seed);
        for (size_t i = 0; i < VALUES; i++)
            if (i / 256 % 8 == 6)
                x[i] = 0.0f; // an f16 scale of 0 would not round trip
        c->quantize(a, x, count);
        assert_true(nyb_blocks_finite(c, a, count));
        c->dequantize(once, a, count);
        c->quantize(a, once, count);
        c->dequantize(twice, a, count);
        for (size_t i = 0; i < VALUES; i++) {
            // Scales are kept in f16: those of the second rounding may differ in the last place.
            const float most = 2e-3f * (fabsf(once[i]) + 1e-7f) + 1.5e-3f;
            if (fabsf(once[i] - twice[i]) > most)
                fail_msg("%s at %zu: %g, then %g", nyb_dtype_name((nyb_dtype) t), i,
                         (double) once[i], (double) twice[i]);
            if (x[i] == 0.0f && i / 256 % 8 == 4)
                assert_true(once[i] == 0.0f);
        }
    }
}

// Blocks taken apart and put together stand for the same values, and so do their parts.
static void parts_are_the_block(void **state)
{
    (void) state;
    static float x[VALUES], want[VALUES], got[VALUES];
    static unsigned char a[MOST_BYTES], b[MOST_BYTES];
    uint64_t seed = 17;
    size_t seen = 0;
    for (int t = NYB_DTYPE_COUNT; t < NYB_DTYPE_END; t++) {
        const nyb_block_codec *const c = nyb_block_codec_get((nyb_dtype) t);
        const nyb_block_size size = nyb_dtype_block((nyb_dtype) t);
        if (!c->split)
            continue;
        fill(x, &seed);
        c->quantize(a, x, VALUES / size.values);
        c->dequantize(want, a, VALUES / size.values);
        for (size_t i = 0; i < VALUES / size.values; i++) {
            uint8_t codes[NYB_BLOCK_VALUES];
            float steps[NYB_BLOCK_PARTS], mins[NYB_BLOCK_PARTS] = {0};
            c->split(codes, steps, mins, a + i * size.bytes);
            for (size_t k = 0; k < size.values; k++) {
                const float value =
                    steps[k / c->part] * (float) (codes[k] - c->zero) - mins[k / c->part];
                assert_true(codes[k] < 1u << c->bits && value == want[i * size.values + k]);
            }
            assert_true(c->join(b + i * size.bytes, codes, steps, mins));
            if (c->bits < 8)
                steps[0] = 0.123456789f; // no product of an f16 and a small number
            assert_true(c->bits == 8 || !c->join(b + (i + 1) * size.bytes, codes, steps, mins));
        }
        c->dequantize(got, b, VALUES / size.values);
        for (size_t i = 0; i < VALUES; i++)
            assert_true(got[i] == want[i]);
        seen++;
    }
    assert_int_equal(seen, 10);
}

// With the weights of plain rounding equal for all values the weighted error is no larger.
static void weights_lower_the_weighted_error(void **state)
{
    (void) state;
    static float x[VALUES], weights[VALUES], plain[VALUES], best[VALUES];
    static unsigned char a[MOST_BYTES];
    uint64_t seed = 23;
    for (int t = NYB_DTYPE_COUNT; t < NYB_DTYPE_END; t++) {
        const nyb_block_codec *const c = nyb_block_codec_get((nyb_dtype) t);
        const size_t count = VALUES / nyb_dtype_block((nyb_dtype) t).values;
        double errors[2] = {0};
        if (!c->quantize || t == NYB_Q8_0)
            continue;
        for (size_t i = 0; i < VALUES; i++) {
            x[i] = test_uniform(&seed) + test_uniform(&seed);
            weights[i] = expf(4.0f * test_uniform(&seed));
        }
        c->quantize(a, x, count);
        c->dequantize(plain, a, count);
        c->quantize_weighted(a, x, weights, count);
        c->dequantize(best, a, count);
        for (size_t i = 0; i < VALUES; i++) {
            errors[0] += (double) (weights[i] * (plain[i] - x[i]) * (plain[i] - x[i]));
            errors[1] += (double) (weights[i] * (best[i] - x[i]) * (best[i] - x[i]));
        }
        print_message("%s: %.4g plain, %.4g weighted\n", nyb_dtype_name((nyb_dtype) t), errors[0],
                      errors[1]);
        assert_true(errors[1] < errors[0]);
    }
}

static void huge_values_are_noticed(void **state)
{
    (void) state;
    float x[256];
    unsigned char a[256];
    size_t seen = 0;
    for (int t = NYB_DTYPE_COUNT; t < NYB_DTYPE_END; t++) {
        const nyb_block_codec *const c = nyb_block_codec_get((nyb_dtype) t);
        if (!c->quantize)
            continue;
        for (size_t i = 0; i < 256; i++)
            x[i] = i % 2 ? 3e30f : -2e30f;
        c->quantize(a, x, 1);
        assert_false(nyb_blocks_finite(c, a, 1));
        seen++;
    }
    assert_int_equal(seen, 10);
}

static void block_sizes_are_told(void **state)
{
    (void) state;
    assert_int_equal(nyb_dtype_block(NYB_Q6_K).values, 256);
    assert_int_equal(nyb_dtype_block(NYB_Q6_K).bytes, 210);
    assert_int_equal(nyb_dtype_block(NYB_F16).values, 1);
    assert_int_equal(nyb_dtype_bytes(NYB_Q4_0), 0);
    assert_string_equal(nyb_dtype_name(NYB_MXFP4), "MXFP4");
    assert_null(nyb_block_codec_get(NYB_F32));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_give_the_same_bits),
        cmocka_unit_test(grids_are_fixed_points),
        cmocka_unit_test(parts_are_the_block),
        cmocka_unit_test(weights_lower_the_weighted_error),
        cmocka_unit_test(huge_values_are_noticed),
        cmocka_unit_test(block_sizes_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
