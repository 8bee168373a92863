// The parts of the program's frame that no command shows in all their cases.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/options.h"
#include "cli/text.h"
#include "cli/values.h"
#include "tests/test.h"

static void width_counts_what_a_terminal_shows(void **state)
{
    (void) state;
    assert_int_equal(nyb_text_width("plain"), 5);
    assert_int_equal(nyb_text_width("gr\xc3\xb6\xc3\x9f"
                                    "e"),
                     5);
    assert_int_equal(nyb_text_width("\xe6\xa8\xa1\xe5\x9e\x8b"), 4); // two wide characters
    assert_int_equal(nyb_text_width("e\xcc\x81"), 1);                // a combining mark
    assert_int_equal(nyb_text_width("\xf0\x9f\x98\x80"), 2);
}

static void cleaning_disarms_and_cuts_at_characters(void **state)
{
    static const struct {
        const char *dirty, *clean;
    } cases[] = {
        {"a\x1b[31mb\nc\td", "a?[31mb?c?d"},
        {"\xff\xfe", "??"},
        {"\xc0\xaf", "??"},           // overlong
        {"\xed\xa0\x80", "???"},      // a surrogate
        {"\xf4\x90\x80\x80", "????"}, // beyond Unicode
        {"\xc3", "?"},                // cut short
        {"\xe2\x80\xae"
         "x",
         "?x"}, // right-to-left override
        {"\xc2\x9b"
         "1m",
         "?1m"}, // a C1 control
        {"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4",
         "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[16];
        nyb_text_clean(out, sizeof(out), cases[i].dirty);
        assert_string_equal(out, cases[i].clean);
    }
}

static void distance_counts_slips(void **state)
{
    (void) state;
    assert_int_equal(nyb_text_distance("", "abc"), 3);
    assert_int_equal(nyb_text_distance("threads", "threads"), 0);
    assert_int_equal(nyb_text_distance("thraeds", "threads"), 1); // neighbours swapped
    assert_int_equal(nyb_text_distance("thread", "threads"), 1);
    assert_int_equal(nyb_text_distance("kitten", "sitting"), 3);
    assert_true(nyb_text_distance("a", "0123456789012345678901234567890123456789"
                                       "0123456789012345678901234567890123456789") == SIZE_MAX);
}

static void sizes_are_read_with_their_units(void **state)
{
    static const nyb_option option = {"memory",       0,          NYB_OPTION_BYTES, 0,
                                      sizeof(size_t), .about = ""};
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {{"0", 0},
                {"1000", 1000},
                {"64K", 65536},
                {"64k", 65536},
                {"2G", 2147483648u},
                {"2GiB", 2147483648u},
                {"2 GB", 2147483648u},
                {"1.5M", 1572864},
                {"10B", 10}};
    static const char *const bad[] = {"",          "G",     "-1",  "1X",  "1GG", "1e3", "0x10",
                                      "99999999T", "1.2.3", "nan", "inf", " 1",  "1K "};
    char why[256];
    size_t out = 0;
    (void) state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(nyb_value_read(&option, good[i].text, &out, why));
        assert_int_equal(out, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        out = 7;
        if (nyb_value_read(&option, bad[i], &out, why))
            fail_msg("'%s' was read as %zu", bad[i], out);
        assert_int_equal(out, 7);
        assert_string_equal(why, "wants a size such as 800M or 2G");
    }
}

static void numbers_keep_to_their_range(void **state)
{
    static const nyb_option real = {"damping",      0,           NYB_OPTION_REAL, 0,
                                    sizeof(double), .about = "", .min = 0.001,    .max = 1.0};
    static const nyb_option whole = {"group-size", 0,           NYB_OPTION_INT, 0,
                                     sizeof(int),  .about = "", .min = -1,      .max = 1024};
    static const char *const bad_reals[] = {"0", "1.1", "-0.5", "nan", "inf", "0x1p-3", "1,0", ""};
    static const char *const bad_wholes[] = {"-2", "1025", "1.0", "--1", "-", "4294967297", ""};
    double value = 0.0;
    int number = 0;
    char why[256];
    (void) state;
    assert_true(nyb_value_read(&real, "1e-2", &value, why));
    assert_true(value == 0.01);
    assert_true(nyb_value_read(&whole, "-1", &number, why));
    assert_int_equal(number, -1);
    for (size_t i = 0; i < sizeof(bad_reals) / sizeof(bad_reals[0]); i++)
        assert_false(nyb_value_read(&real, bad_reals[i], &value, why));
    assert_string_equal(why, "wants a number from 0.001 to 1");
    for (size_t i = 0; i < sizeof(bad_wholes) / sizeof(bad_wholes[0]); i++)
        assert_false(nyb_value_read(&whole, bad_wholes[i], &number, why));
    assert_string_equal(why, "wants a whole number from -1 to 1024");
}

typedef struct settings {
    nyb_texts texts;
    const char *path;
    size_t samples;
    int choice;
    bool on, flag;
} settings;

static const char *const choices[] = {"none", "group", "full", NULL};
static const settings defaults = {.samples = 128, .choice = 1, .on = true};
static const nyb_option table[] = {
    {"text", 't', NYB_OPTION_TEXTS, NYB_INTO(settings, texts), .about = "Texts."},
    {"output", 'o', NYB_OPTION_PATH, NYB_INTO(settings, path), .about = "Out.", .required = true},
    {"num-samples", 'n', NYB_OPTION_SIZE, NYB_INTO(settings, samples), .about = "Samples."},
    {"order", 0, NYB_OPTION_CHOICE, NYB_INTO(settings, choice), .choices = choices,
     .about = "Order."},
    {"verify", 0, NYB_OPTION_SWITCH, NYB_INTO(settings, on), .about = "Verify."},
    {"force", 0, NYB_OPTION_FLAG, NYB_INTO(settings, flag), .about = "Force."},
    {0}};
static const nyb_command command = {.name = "thing",
                                    .about = "A thing",
                                    .operands = "MODEL...",
                                    .operand_min = 1,
                                    .operand_max = 3,
                                    .options = table,
                                    .options_size = sizeof(settings),
                                    .defaults = &defaults};

enum { WORDS_MAX = 16 };

typedef struct line {
    char *words[WORDS_MAX];
    nyb_options_store store;
    nyb_common common;
    nyb_call call;
} line;

// Parses words parted by spaces; `text` is cut up.
static nyb_exit parse(line *l, char *text)
{
    size_t count = 0;
    *l = (line){.call = {.command = &command}};
    for (char *at = text; *at && count < WORDS_MAX;) {
        const size_t length = strcspn(at, " ");
        char *const next = at + length + (at[length] == ' ');
        at[length] = '\0';
        l->words[count++] = at;
        at = next;
    }
    return nyb_options_parse(&l->call, &l->store, &l->common, count, l->words);
}

static void a_command_line_fills_the_struct(void **state)
{
    char text[] = "a -t x --text=y b -oout --num-samples 7 --order full --no-verify --force -- -c";
    line l;
    (void) state;
    assert_int_equal(parse(&l, text), NYB_EXIT_OK);
    const settings *const s = l.call.options;
    assert_int_equal(s->texts.count, 2);
    assert_string_equal(s->texts.at[1], "y");
    assert_string_equal(s->path, "out");
    assert_int_equal(s->samples, 7);
    assert_int_equal(s->choice, 2);
    assert_true(!s->on && s->flag);
    assert_int_equal(l.call.operand_count, 3);
    assert_string_equal(l.call.operands[0], "a");
    assert_string_equal(l.call.operands[2], "-c");
    assert_true(nyb_call_given(&l.call, "order") && nyb_call_given(&l.call, "text"));
}

static void defaults_stay_where_nothing_was_given(void **state)
{
    char text[] = "-o out a";
    line l;
    (void) state;
    assert_int_equal(parse(&l, text), NYB_EXIT_OK);
    const settings *const s = l.call.options;
    assert_int_equal(s->samples, 128);
    assert_int_equal(s->choice, 1);
    assert_true(s->on && !s->flag && s->texts.count == 0);
    assert_false(nyb_call_given(&l.call, "num-samples") || nyb_call_given(&l.call, "no such"));
}

static void wrong_command_lines_are_usage_errors(void **state)
{
    char lines[][48] = {"a",                     // --output is required
                        "-o out",                // no operand
                        "-o out a b c d",        // too many
                        "-o out a --order most", // no such choice
                        "-o out a --no-force",   // a flag cannot be turned off
                        "-o out a --verify=1",
                        "-o out a --num",
                        "-o out a -n",
                        "a -o"};
    line l;
    (void) state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_int_equal(parse(&l, lines[i]), NYB_EXIT_USAGE);
}

static void soundness_finds_wrong_fields(void **state)
{
    static const nyb_option wrong = {"n", 0, NYB_OPTION_SIZE, NYB_INTO(settings, choice),
                                     .about = ""};
    static const nyb_option lost = {"n", 0, NYB_OPTION_CHOICE, NYB_INTO(settings, choice),
                                    .about = ""};
    (void) state;
    for (const nyb_option *o = table; o->name; o++)
        assert_true(nyb_option_is_sound(o, sizeof(settings)));
    assert_false(nyb_option_is_sound(&wrong, sizeof(settings)));
    assert_false(nyb_option_is_sound(&lost, sizeof(settings)));
    assert_false(nyb_option_is_sound(&table[2], 8));
}

// Runs `print` with a file descriptor turned into a file, and returns what was written to it.
static void capture(char *out, size_t size, int descriptor, void (*print)(void))
{
    char path[] = "/tmp/nybble-test-XXXXXX";
    const int file = mkstemp(path), kept = dup(descriptor);
    assert_true(file >= 0 && kept >= 0);
    (void) fflush(NULL);
    (void) dup2(file, descriptor);
    print();
    (void) fflush(NULL);
    (void) dup2(kept, descriptor);
    const ssize_t length = pread(file, out, size - 1, 0);
    out[length > 0 ? length : 0] = '\0';
    (void) close(file);
    (void) close(kept);
    (void) unlink(path);
}

static void print_table(void)
{
    static const nyb_column columns[] = {{"model", false}, {"bits", true}, {"note", false}};
    nyb_table t = nyb_table_new(columns, 3);
    nyb_table_cell(&t, "%s", "\xe6\xa8\xa1\xe5\x9e\x8b");
    nyb_table_cell(&t, "%.1f", 16.0);
    nyb_table_cell(&t, "%s", "wide");
    nyb_table_cell(&t, "%s", "gptq-4");
    nyb_table_cell(&t, "%.1f", 4.5);
    nyb_table_cell(&t, "%s", "");
    nyb_table_print(&t);
}

static void tables_line_up(void **state)
{
    char out[512];
    (void) state;
    capture(out, sizeof(out), STDOUT_FILENO, print_table);
    assert_string_equal(out, "model   bits  note\n"
                             "\xe6\xa8\xa1\xe5\x9e\x8b    16.0  wide\n"
                             "gptq-4   4.5\n");
}

static void say_things(void)
{
    nyb_console console = {.level = NYB_LOG_WARNING, .live = true};
    const nyb_context context = nyb_console_context(&console);
    nyb_progress step = {"calibrate", "model.layers.3", "layers", 3, 30};
    context.progress(context.user, &step);
    step.done = 4; // too soon after the first to be drawn
    context.progress(context.user, &step);
    context.log(context.user, NYB_LOG_INFO, "not shown");
    context.log(context.user, NYB_LOG_WARNING, "text is short");
    nyb_console_clear(&console);
}

static void progress_is_one_line_that_messages_wipe(void **state)
{
    char out[512];
    (void) state;
    capture(out, sizeof(out), STDERR_FILENO, say_things);
    assert_string_equal(out, "\rcalibrate  3/30 layers  10 %  model.layers.3\033[K"
                             "\r\033[Knybble: warning: text is short\n");
}

static void say_in_a_pipe(void)
{
    nyb_console console = nyb_console_new(false, 0);
    const nyb_context context = nyb_console_context(&console);
    const nyb_progress step = {"calibrate", NULL, "layers", 3, 30};
    context.progress(context.user, &step);
    context.log(context.user, NYB_LOG_ERROR, "wrong");
}

static void progress_is_silent_in_a_pipe(void **state)
{
    char out[512];
    (void) state;
    capture(out, sizeof(out), STDERR_FILENO, say_in_a_pipe);
    assert_string_equal(out, "nybble: wrong\n");
}

static void bytes_are_told_in_the_unit_that_fits(void **state)
{
    char text[32];
    (void) state;
    assert_string_equal(nyb_bytes_text(text, 976), "976 bytes");
    assert_string_equal(nyb_bytes_text(text, 1024), "1.00 KiB");
    assert_string_equal(nyb_bytes_text(text, 1048575), "1.00 MiB");
    assert_string_equal(nyb_bytes_text(text, UINT64_C(1610612736)), "1.50 GiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(width_counts_what_a_terminal_shows),
        cmocka_unit_test(cleaning_disarms_and_cuts_at_characters),
        cmocka_unit_test(distance_counts_slips),
        cmocka_unit_test(sizes_are_read_with_their_units),
        cmocka_unit_test(numbers_keep_to_their_range),
        cmocka_unit_test(a_command_line_fills_the_struct),
        cmocka_unit_test(defaults_stay_where_nothing_was_given),
        cmocka_unit_test(wrong_command_lines_are_usage_errors),
        cmocka_unit_test(soundness_finds_wrong_fields),
        cmocka_unit_test(tables_line_up),
        cmocka_unit_test(progress_is_one_line_that_messages_wipe),
        cmocka_unit_test(progress_is_silent_in_a_pipe),
        cmocka_unit_test(bytes_are_told_in_the_unit_that_fits),
    };
    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
