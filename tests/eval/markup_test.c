#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/markup.h"

static void check_text(const char *in, const char *want)
{
    nyb_bytes out = {0};
    nyb_markup_text(&out, in);
    assert_int_equal(nyb_bytes_status(&out, NULL), NYB_OK);
    nyb_bytes_add(&out, "", 1);
    assert_string_equal(out.at, want);
    nyb_bytes_clear(&out);
}

static void text_cannot_become_markup(void **state)
{
    (void) state;
    check_text("", "");
    check_text("a <b> & \"c\" 'd'", "a &lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
    check_text("&lt;", "&amp;lt;");
    check_text("\xc3\xa4\xf0\x9f\x98\x80 tab\tline\nend",
               "\xc3\xa4\xf0\x9f\x98\x80 tab\tline\nend");
    check_text("\x01\x1b[31m\x7f", "\xef\xbf\xbd\xef\xbf\xbd[31m\xef\xbf\xbd");
    check_text("\xe2\x80\xaegnp\xe2\x81\xa6", "\xef\xbf\xbdgnp\xef\xbf\xbd"); // U+202E, U+2066
    check_text("\xef\xbf\xbe\xef\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd");       // U+FFFE, U+FFFF
    check_text("\xc2\x85", "\xef\xbf\xbd");                                   // C1 control
    check_text("a\xff\xc3", "a\xef\xbf\xbd\xef\xbf\xbd");                     // not UTF-8
}

static void long_text_is_cut_at_a_character(void **state)
{
    nyb_bytes out = {0};
    (void) state;
    nyb_markup_short(&out, "abcdef", 6);
    nyb_markup_short(&out, "|abcdefg", 6);
    nyb_markup_short(&out, "|\xe5\x90\x8d\xe5\x89\x8d\xe5\x90\x8d", 6); // three wide ones
    nyb_bytes_add(&out, "", 1);
    assert_string_equal(out.at, "abcdef|abcd\xe2\x80\xa6|\xe5\x90\x8d\xe5\x89\x8d\xe2\x80\xa6");
    nyb_bytes_clear(&out);
    assert_int_equal(nyb_text_columns("a\xe5\x90\x8d"), 3);
}

static void numbers_have_four_digits(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{6.326543, "6.327"}, {32.46, "32.46"},        {549.657, "549.7"},
                 {1234.4, "1,234"},   {99999.4, "99,999"},     {0.06668, "0.06668"},
                 {0.1, "0.1000"},     {0.0012346, "0.001235"}, {0.00012346, "1.235e-4"},
                 {9.9996, "10.00"},   {1.5e7, "1.500e+7"},     {0.0, "0"},
                 {-2.5, "-2.500"},    {123456.0, "123,456"},   {1e-300, "1.000e-300"}};
    char text[NYB_NUMBER_TEXT];
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(nyb_number_text(text, cases[i].value), cases[i].text);
    assert_string_equal(nyb_number_text(text, (double) NAN), "-");
    assert_string_equal(nyb_count_text(text, 1234567.0), "1,234,567");
    assert_string_equal(nyb_count_text(text, 100.0), "100");
    assert_string_equal(nyb_count_text(text, -1000.0), "-1,000");
    assert_string_equal(nyb_size_text(text, 1023.0), "1,023 bytes");
    assert_string_equal(nyb_size_text(text, 1536.0), "1.500 KiB");
    assert_string_equal(nyb_size_text(text, 1e30), "8.882e+14 PiB");
}

static void exact_text_reads_back(void **state)
{
    uint64_t seed = 3;
    char text[NYB_NUMBER_TEXT];
    (void) state;
    for (int i = 0; i < 20000; i++) {
        const double value = ldexp((double) test_uniform(&seed), i % 200 - 100);
        assert_true(strtod(nyb_exact_text(text, value), NULL) == value);
    }
    assert_string_equal(nyb_exact_text(text, 6.3265), "6.3265");
    assert_string_equal(nyb_exact_text(text, 290140.0), "290140");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_cannot_become_markup),
        cmocka_unit_test(long_text_is_cut_at_a_character),
        cmocka_unit_test(numbers_have_four_digits),
        cmocka_unit_test(exact_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
