#include "tests/test.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "model/byte_level.h"
#include "model/unicode.h"

static void every_character_comes_back(void **state)
{
    (void) state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char text[NYB_UTF8_MAX];
        const size_t length = nyb_utf8_put(c, text);
        const bool surrogate = c >= 0xd800 && c < 0xe000;
        assert_int_equal(nyb_utf8_valid(text, length), surrogate ? 0 : length);
        assert_int_equal(nyb_utf8_valid(text, length - 1), 0); // cut off
        size_t at = 0;
        if (!surrogate) {
            assert_int_equal(nyb_utf8_next(text, &at), c);
            assert_int_equal(at, length);
            assert_int_equal(nyb_utf8_back(text, length), 0);
        }
    }
}

static void broken_bytes_become_replacement_characters(void **state)
{
    // Unicode 15, table 3-8 and neighbours; R is U+FFFD.
    static const char *const cases[][2] = {
        {"a\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", "aRRRbRcRRd"},
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "RRRRRRRRA"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "RRRRRRRRA"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "RRRRRARRB"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "RRRRA"},
        {"12345678\xc3\xa9", "12345678\xc3\xa9"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nyb_bytes got = {0}, want = {0};
        nyb_utf8_repair(&got, cases[i][0], strlen(cases[i][0]));
        for (const char *c = cases[i][1]; *c; c++)
            nyb_bytes_add(&want, *c == 'R' ? "\xef\xbf\xbd" : c, *c == 'R' ? 3 : 1);
        assert_int_equal(got.count, want.count);
        assert_memory_equal(got.at, want.at, want.count);
        nyb_bytes_clear(&got);
        nyb_bytes_clear(&want);
    }
}

static uint32_t random_char(uint64_t *random)
{
    static const uint32_t blocks[][2] = {
        {0x20, 0x7f},     {0xa0, 0x250},    {0x300, 0x370},   {0x5b0, 0x5c8},   {0x900, 0xa00},
        {0x1100, 0x1200}, {0x1e00, 0x2100}, {0xac00, 0xac80}, {0xfb00, 0xfb50}, {0x2f800, 0x2f900}};
    const size_t block = nyb_random_below(random, sizeof(blocks) / sizeof(blocks[0]));
    return blocks[block][0] +
           (uint32_t) nyb_random_below(random, blocks[block][1] - blocks[block][0]);
}

static void forms_are_utf8procs(void **state)
{
    static const utf8proc_option_t options[] = {
        [NYB_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NYB_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [NYB_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NYB_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    uint64_t random = 3;
    size_t changed = 0;
    (void) state;
    for (size_t round = 0; round < 4000; round++) {
        nyb_bytes text = {0};
        const size_t length = 1 + nyb_random_below(&random, 24);
        for (size_t i = 0; i < length; i++)
            nyb_bytes_add_char(&text, random_char(&random));
        for (int form = NYB_NFC; form <= NYB_NFKD; form++) {
            nyb_bytes got = {0};
            nyb_err err;
            utf8proc_uint8_t *want = NULL;
            const utf8proc_ssize_t count =
                utf8proc_map((const utf8proc_uint8_t *) text.at, (utf8proc_ssize_t) text.count,
                             &want, options[form]);
            assert_true(count > 0);
            assert_int_equal(
                nyb_unicode_normalize(&got, text.at, text.count, (nyb_form) form, &err), NYB_OK);
            assert_int_equal(got.count, count);
            assert_memory_equal(got.at, want, got.count);
            changed += got.count != text.count || memcmp(got.at, text.at, got.count) != 0;
            free(want);
            nyb_bytes_clear(&got);
        }
        nyb_bytes_clear(&text);
    }
    assert_true(changed > 4000);
}

// Marks of alternating classes: sorting them by exchanging neighbours would take for ever.
static void a_run_of_marks_takes_little_time(void **state)
{
    enum { PAIRS = 500000 };
    nyb_bytes text = {0}, got = {0};
    nyb_err err;
    (void) state;
    nyb_bytes_add(&text, "a", 1);
    for (size_t i = 0; i < PAIRS; i++) {
        nyb_bytes_add_char(&text, 0x315); // class 232
        nyb_bytes_add_char(&text, 0x316); // class 220
    }
    assert_int_equal(nyb_unicode_normalize(&got, text.at, text.count, NYB_NFD, &err), NYB_OK);
    assert_int_equal(got.count, text.count);
    size_t first = 1, last = got.count - 2;
    assert_int_equal(nyb_utf8_next(got.at, &first), 0x316);
    assert_int_equal(nyb_utf8_next(got.at, &last), 0x315);
    nyb_bytes_clear(&text);
    nyb_bytes_clear(&got);
}

static void bytes_have_a_character_each(void **state)
{
    bool seen[0x200] = {false};
    (void) state;
    for (int byte = 0; byte < 256; byte++) {
        nyb_bytes text = {0};
        const char c = (char) byte;
        size_t at = 0;
        nyb_byte_level_put(&text, &c, 1);
        const uint32_t spelt = nyb_utf8_next(text.at, &at);
        assert_int_equal(at, text.count);
        assert_true(spelt < 0x200 && !seen[spelt] && !nyb_char_is_space(spelt));
        assert_int_equal(nyb_byte_level_byte(spelt), byte);
        seen[spelt] = true;
        nyb_bytes_clear(&text);
    }
    assert_true(seen[0x120] && seen[0x10a] && seen['!']); // space, line feed
    assert_int_equal(nyb_byte_level_byte(' '), -1);
    assert_int_equal(nyb_byte_level_byte(0x144), -1);
    assert_int_equal(nyb_byte_level_byte(0x4e00), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_comes_back),
        cmocka_unit_test(broken_bytes_become_replacement_characters),
        cmocka_unit_test(forms_are_utf8procs),
        cmocka_unit_test(a_run_of_marks_takes_little_time),
        cmocka_unit_test(bytes_have_a_character_each),
    };
    return cmocka_run_group_tests_name("unicode", tests, NULL, NULL);
}
