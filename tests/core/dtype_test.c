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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_survive_f32),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
