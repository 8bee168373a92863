#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

#include "eval/axis.h"

static nyb_axis axis_over(double low, double high, bool log)
{
    nyb_extent extent = NYB_EXTENT_NONE;
    nyb_extent_add(&extent, low);
    nyb_extent_add(&extent, (double) NAN);
    nyb_extent_add(&extent, high);
    return nyb_axis_of(&extent, log, 100.0, 500.0);
}

// The digits of a tick, without zeros at either end.
static int digits_of(double value)
{
    char text[40];
    (void) snprintf(text, sizeof(text), "%.9e", value);
    int digits = 0;
    for (int i = 0; text[i] && text[i] != 'e'; i++) {
        if (text[i] >= '1' && text[i] <= '9')
            digits = i - (text[0] == '-') + (i < 2 ? 1 : 0);
    }
    return digits;
}

// Whatever the range: ticks are inside, rise, are spread evenly enough, have at most two digits
// beyond what the range itself needs, and the ends of the data lie inside the axis.
static void ticks_are_round_and_inside(void **state)
{
    uint64_t seed = 1;
    (void) state;
    for (int i = 0; i < 4000; i++) {
        const double low = pow(10.0, 12.0 * (double) test_uniform(&seed));
        const double high = low * (1.0 + pow(10.0, 5.0 * (double) test_uniform(&seed)));
        const nyb_axis axis = axis_over(low, high, i % 2 == 0);
        const nyb_ticks ticks = nyb_axis_ticks(&axis, 6);
        assert_true(axis.low < axis.high && axis.low <= low && axis.high >= high);
        assert_in_range(ticks.count, 2, NYB_TICKS_MAX);
        for (size_t t = 0; t < ticks.count; t++) {
            const double at = nyb_axis_place(&axis, ticks.at[t]);
            assert_true(at > 99.9 && at < 500.1);
            assert_true(t == 0 || ticks.at[t] > ticks.at[t - 1]);
            const double span = log10(fmax(fabs(ticks.at[t]), 1e-300) / (axis.high - axis.low));
            assert_true(digits_of(ticks.at[t]) <= 2 + (span > 0.0 ? (int) ceil(span) : 0));
        }
    }
}

static void places_are_linear_in_the_value_or_its_logarithm(void **state)
{
    (void) state;
    const nyb_axis flat = axis_over(2.0, 4.0, false), log = axis_over(1.0, 1000.0, true);
    assert_false(flat.log);
    assert_true(log.log);
    assert_near(nyb_axis_place(&flat, 3.0), 300.0, 1e-9);
    assert_near(nyb_axis_place(&log, sqrt(1000.0)), 300.0, 1e-9);
    assert_near(nyb_axis_place(&flat, flat.low), 100.0, 1e-9);
    assert_near(nyb_axis_place(&log, log.high), 500.0, 1e-9);
}

static void a_log_scale_is_taken_where_it_can_be(void **state)
{
    (void) state;
    assert_false(axis_over(0.0, 10.0, true).log);
    assert_false(axis_over(-1.0, 10.0, true).log);
    assert_false(axis_over(5.0, 6.0, true).log);
    assert_true(axis_over(5.0, 50.0, true).log);
    assert_true(axis_over(0.0, 10.0, false).low == 0.0);
}

static void one_value_and_none_still_give_an_axis(void **state)
{
    static const double values[] = {0.0, 7.0, -7.0, 1e30, 1e-30};
    const nyb_extent none = NYB_EXTENT_NONE;
    (void) state;
    assert_true(nyb_extent_is_empty(&none));
    const nyb_axis empty = nyb_axis_of(&none, true, 0.0, 1.0);
    assert_true(empty.low < empty.high);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        const nyb_axis axis = axis_over(values[i], values[i], true);
        assert_true(axis.low < axis.high);
        assert_true(isfinite(nyb_axis_place(&axis, values[i])));
        assert_true(nyb_axis_ticks(&axis, 6).count >= 1);
    }
}

static void ticks_are_written_as_short_as_can_be(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.0, "0"},        {0.1, "0.1"},      {3.0 * 0.1, "0.3"}, {2.5, "2.5"},
                 {1000.0, "1,000"}, {20000, "20,000"}, {0.001, "0.001"},   {1e-5, "1e-5"},
                 {2e-6, "2e-6"},    {5e7, "5e7"},      {-0.5, "-0.5"},     {1e30, "1e30"}};
    char text[NYB_NUMBER_TEXT];
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(nyb_tick_text(text, cases[i].value), cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_are_round_and_inside),
        cmocka_unit_test(places_are_linear_in_the_value_or_its_logarithm),
        cmocka_unit_test(a_log_scale_is_taken_where_it_can_be),
        cmocka_unit_test(one_value_and_none_still_give_an_axis),
        cmocka_unit_test(ticks_are_written_as_short_as_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
