#include "tests/test.h"

#include <string.h>

#include "model/pattern.h"

typedef struct example {
    const char *pattern, *text;
    const char *matches; // each in angle brackets, gaps between them bare
} example;

static const example examples[] = {
    {"a|b", "xaby", "x<a><b>y"},
    {"\\p{N}{1,3}", "12345", "<123><45>"},
    {"\\d{2}+", "12345", "<1234>5"}, // a repeated repetition
    {"\\d{,2}x", "123x", "1<23x>"},
    {"x{a}", "x{a}", "<x{a}>"},
    {"[^\\r\\n\\p{L}]?+\\p{L}+", " ab cd", "< ab>< cd>"},
    {"\\s+(?!\\S)|\\s+", "a   b", "a<  >< >b"},
    {"\\s", "a\u180e\xc2\x85.", "a\u180e<\xc2\x85>."}, // NEL is space
    {"\\w+", "aⒶé\u0301-b", "<aⒶé\u0301>-<b>"},
    {"\\bb", "ab b", "ab <b>"},
    {"\\h+", "fgA", "<f>g<A>"},
    {"\\u00e9", "é", "<é>"},
    {"[a[bc]d]+", "xabcdx", "x<abcd>x"},
    {"[^a[bc]]+", "axybc", "a<xy>bc"},
    {"[[:alpha:]_]+", "a_1", "<a_>1"},
    {"[\\p{L}&&[^a-f]]+", "abxyf", "ab<xy>f"},
    {"[a-z&&aeiou]+", "xaeb", "x<ae>b"},
    {"[]a]+", "x]a", "x<]a>"},
    {"(?i:'s|'LL)", "x'S'll", "x<'S><'ll>"},
    {"(?i)AB|c", "abC", "<ab><C>"},
    {"(?m:a.b)", "a\nb", "<a\nb>"},
    {"^a", "a\na", "<a>\n<a>"},
    {"a$", "a\na", "<a>\n<a>"},
    {"x*", "axb", "<>a<x>b<>"},
    {"\\p{Han}+", "a漢、字", "a<漢>、<字>"},
    {"\\p{^Latin}", "aб", "a<б>"},
    {"\\p{Letter}\\P{L}", "a1", "<a1>"},
    {"(ab)+c(?=d)", "ababcd", "<ababc>d"},
    {"(?<!a)b(?>c+)", "abcbcc", "abc<bcc>"},
    {"\\.\\-\\/\\\"", ".-/\"", "<.-/\">"},
};

static void expressions_match_as_oniguruma_has_it(void **state)
{
    (void) state;
    nyb_matcher *matcher = NULL;
    nyb_err err;
    assert_int_equal(nyb_matcher_new(&matcher, &err), NYB_OK);
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        const example *const e = &examples[i];
        nyb_pattern *pattern = NULL;
        nyb_ranges found = {0};
        nyb_bytes shown = {0};
        if (nyb_pattern_regex(&pattern, e->pattern, strlen(e->pattern), &err) != NYB_OK)
            fail_msg("'%s': %s", e->pattern, err.text);
        assert_int_equal(nyb_pattern_find(pattern, matcher, e->text, strlen(e->text), &found, &err),
                         NYB_OK);
        for (size_t k = 0; k < found.count; k++) {
            nyb_bytes_add(&shown, "<", found.at[k].flag);
            nyb_bytes_add(&shown, e->text + found.at[k].begin, found.at[k].end - found.at[k].begin);
            nyb_bytes_add(&shown, ">", found.at[k].flag);
        }
        nyb_bytes_add(&shown, "", 1);
        if (strcmp(shown.at, e->matches) != 0)
            fail_msg("'%s' on '%s': got %s, want %s", e->pattern, e->text, shown.at, e->matches);
        nyb_bytes_clear(&shown);
        nyb_ranges_clear(&found);
        nyb_pattern_free(pattern);
    }
    nyb_matcher_free(matcher);
}

static void what_has_no_translation_is_refused_by_name(void **state)
{
    static const char *const cases[][2] = {
        {"a\\Kb", "'\\K'"},
        {"\\R", "'\\R'"},
        {"(*ACCEPT)", "'(*'"},
        {"(?<name>a)", "group"},
        {"(?(1)a|b)", "group"},
        {"a(?i)b", "option"},
        {"(a", "'('"},
        {"a)", "')'"},
        {"[a", "set"},
        {"[a[^b]]", "negated set"},
        {"[^a&&b]", "negated intersection"},
        {"\\pL", "property"},
        {"\\p{}", "property"},
        {"\\p{Klingon}", "Klingon"},
        {"[[:graph:]]", "named set"},
        {"\\u12", "\\u"},
        {"*a", "does not compile"},
        {"a{3,2}", "does not compile"},
        {"\\", "'\\"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nyb_pattern *pattern = NULL;
        nyb_err err = {0};
        assert_int_equal(nyb_pattern_regex(&pattern, cases[i][0], strlen(cases[i][0]), &err),
                         NYB_E_UNSUPPORTED);
        assert_null(pattern);
        if (!strstr(err.text, cases[i][1]))
            fail_msg("'%s': '%s' does not say %s", cases[i][0], err.text, cases[i][1]);
    }
}

static void endless_backtracking_ends_as_an_error(void **state)
{
    (void) state;
    static const char slow[] = "(a|aa|a*)*(a|aa|a*)*b|c(?=(x+x+)+y)";
    nyb_pattern *pattern = NULL;
    nyb_matcher *matcher = NULL;
    nyb_ranges found = {0};
    nyb_err err = {0};
    char text[4001];
    memset(text, 'x', sizeof(text));
    text[0] = 'c';
    assert_int_equal(nyb_pattern_regex(&pattern, slow, strlen(slow), &err), NYB_OK);
    assert_int_equal(nyb_matcher_new(&matcher, &err), NYB_OK);
    const nyb_status status = nyb_pattern_find(pattern, matcher, text, sizeof(text), &found, &err);
    print_message("%s: %s\n", nyb_status_name(status), err.text);
    assert_int_equal(status, NYB_E_NUMERIC);
    nyb_ranges_clear(&found);
    nyb_matcher_free(matcher);
    nyb_pattern_free(pattern);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_match_as_oniguruma_has_it),
        cmocka_unit_test(what_has_no_translation_is_refused_by_name),
        cmocka_unit_test(endless_backtracking_ends_as_an_error),
    };
    return cmocka_run_group_tests_name("pattern", tests, NULL, NULL);
}
