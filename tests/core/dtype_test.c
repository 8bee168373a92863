#include "tests/test.h"

#include <math.h>

#include "core/dtype.h"

// Every one of the 65,536 halves comes back from f32 unchanged (NaN keeps its sign and stays NaN).
static void halves_survive_f32(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 65536; i++) {
        const uint16_t half = (uint16_t) i;
        const float f16 = nyb_f32_of_f16(half), bf16 = nyb_f32_of_bf16(half);
        if (isnan(f16))
            assert_true(isnan(nyb_f32_of_f16(nyb_f16_of_f32(f16))));
        else
            assert_int_equal(nyb_f16_of_f32(f16), half);
        if (isnan(bf16))
            assert_true(isnan(nyb_f32_of_bf16(nyb_bf16_of_f32(bf16))));
        else
            assert_int_equal(nyb_bf16_of_f32(bf16), half);
    }
}

// Between two neighbours the nearer one wins, and the even one at the midpoint.
static void narrowing_rounds_to_nearest_even(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 0x7bff; i++) {
        const double low = (double) nyb_f32_of_f16((uint16_t) i);
        const double high = (double) nyb_f32_of_f16((uint16_t) (i + 1));
        const float middle = (float) ((low + high) / 2); // exact: one bit more than a half
        assert_int_equal(nyb_f16_of_f32(middle), i + (i & 1));
        assert_int_equal(nyb_f16_of_f32(nextafterf(middle, 0.0f)), i);
        assert_int_equal(nyb_f16_of_f32(nextafterf(middle, INFINITY)), i + 1);
        assert_int_equal(nyb_f16_of_f32(-middle), 0x8000 | (i + (i & 1)));
    }
    for (uint32_t i = 0; i < 0x7f7f; i++) {
        const float middle = nyb_f32_of_bits(i << 16 | 0x8000);
        assert_int_equal(nyb_bf16_of_f32(middle), i + (i & 1));
        assert_int_equal(nyb_bf16_of_f32(nyb_f32_of_bits(i << 16 | 0x7fff)), i);
        assert_int_equal(nyb_bf16_of_f32(nyb_f32_of_bits(i << 16 | 0x8001)), i + 1);
    }
    assert_int_equal(nyb_f16_of_f32(65519.0f), 0x7bff);
    assert_int_equal(nyb_f16_of_f32(65520.0f), 0x7c00);
    assert_int_equal(nyb_bf16_of_f32(3.4e38f), 0x7f80);
}

typedef struct float8 {
    float (*widen)(uint8_t code);
    uint8_t (*narrow)(float value);
    unsigned codes; // finite ones that are not negative
} float8;

static const float8 kinds[] = {
    {nyb_f32_of_e4m3, nyb_e4m3_of_f32, 0x7f},
    {nyb_f32_of_e5m2, nyb_e5m2_of_f32, 0x7c},
};

// Codes come back from f32 unchanged, and rise with their values.
static void float8_survives_f32(void **state)
{
    (void) state;
    for (size_t k = 0; k < 2; k++) {
        for (unsigned i = 0; i < 256; i++) {
            const float value = kinds[k].widen((uint8_t) i);
            if (isnan(value)) {
                assert_true((i & 0x7f) > (k ? 0x7cu : 0x7eu));
                assert_int_equal(kinds[k].narrow(value), (i & 0x80) | 0x7f);
            } else if (k == 1 || (i & 0x7f) < 0x7f) {
                assert_int_equal(kinds[k].narrow(value), i);
            }
        }
        for (unsigned i = 1; i < kinds[k].codes; i++)
            assert_true(kinds[k].widen((uint8_t) i) > kinds[k].widen((uint8_t) (i - 1)));
    }
    assert_true(nyb_f32_of_e4m3(0x7e) == 448.0f && nyb_f32_of_e4m3(1) == 0x1p-9f);
    assert_true(nyb_f32_of_e5m2(0x7b) == 57344.0f && nyb_f32_of_e5m2(1) == 0x1p-16f);
}

static void float8_rounds_to_nearest_even(void **state)
{
    (void) state;
    for (size_t k = 0; k < 2; k++) {
        for (unsigned i = 0; i + 1 < kinds[k].codes; i++) {
            const float low = kinds[k].widen((uint8_t) i), high = kinds[k].widen((uint8_t) (i + 1));
            const float middle = (low + high) / 2; // exact
            assert_int_equal(kinds[k].narrow(middle), i + (i & 1));
            assert_int_equal(kinds[k].narrow(nextafterf(middle, 0.0f)), i);
            assert_int_equal(kinds[k].narrow(nextafterf(middle, INFINITY)), i + 1);
            assert_int_equal(kinds[k].narrow(-middle), 0x80 | (i + (i & 1)));
        }
    }
    assert_int_equal(nyb_e4m3_of_f32(464.0f), 0x7e);
    assert_int_equal(nyb_e4m3_of_f32(1e30f), 0x7e);
    assert_int_equal(nyb_e4m3_of_f32(-INFINITY), 0xfe);
    assert_int_equal(nyb_e5m2_of_f32(61439.0f), 0x7b);
    assert_int_equal(nyb_e5m2_of_f32(61440.0f), 0x7c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_survive_f32),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
        cmocka_unit_test(float8_survives_f32),
        cmocka_unit_test(float8_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
