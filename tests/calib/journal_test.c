#include "tests/test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/journal.h"
#include "core/file.h"

enum { BLOCKS = 3 };

static char folder[] = "journal_test_XXXXXX";

static int make_folder(void **state)
{
    (void) state;
    (void) strcpy(folder, "journal_test_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void) state;
    return nyb_folder_remove(folder, NULL) == NYB_OK ? 0 : -1;
}

static json_t *run_of(int bits)
{
    return json_pack("{s:s, s:{s:i, s:f}}", "schema", "nybble.run/1", "settings", "bits", bits,
                     "damping", 0.01);
}

static void write_journal(void)
{
    nyb_journal j;
    nyb_err err;
    json_t *const run = run_of(4);
    assert_int_equal(nyb_journal_create(&j, folder, run, &err), NYB_OK);
    assert_int_equal(nyb_journal_ready(&j, &err), NYB_OK);
    for (int b = 0; b < BLOCKS; b++)
        assert_int_equal(
            nyb_journal_block(&j, json_pack("{s:i, s:[]}", "block", b, "layers"), &err), NYB_OK);
    nyb_journal_close(&j);
    json_decref(run);
}

static char *path_of(nyb_arena *arena)
{
    return nyb_path_join(arena, folder, NYB_JOURNAL_NAME);
}

// A kill can cut the file anywhere: every prefix is read as the whole lines in it, and can be
// gone on with.
static void every_prefix_is_its_whole_lines(void **state)
{
    nyb_arena arena = {0};
    nyb_err err;
    char *text = NULL;
    size_t length = 0;
    (void) state;
    write_journal();
    assert_int_equal(nyb_file_read(&arena, path_of(&arena), 1 << 20, &text, &length, &err), NYB_OK);

    for (size_t cut = 0; cut <= length; cut++) {
        size_t lines = 0;
        for (size_t i = 0; i < cut; i++)
            lines += text[i] == '\n';
        assert_int_equal(nyb_file_write(path_of(&arena), text, cut, &err), NYB_OK);

        nyb_journal j;
        json_t *const run = run_of(4);
        assert_int_equal(nyb_journal_reopen(&j, folder, run, &err), NYB_OK);
        const size_t blocks = json_array_size(j.blocks);
        assert_int_equal(j.ready, lines >= 2);
        assert_int_equal(blocks, lines > 2 ? lines - 2 : 0);
        if (j.ready && blocks < BLOCKS) {
            json_t *const line = json_pack("{s:I, s:[]}", "block", (json_int_t) blocks, "layers");
            assert_int_equal(nyb_journal_block(&j, line, &err), NYB_OK);
            nyb_journal_close(&j);
            assert_int_equal(nyb_journal_reopen(&j, folder, run, &err), NYB_OK);
            assert_int_equal(json_array_size(j.blocks), blocks + 1);
        }
        nyb_journal_close(&j);
        json_decref(run);
    }
    nyb_arena_clear(&arena);
}

static void another_run_is_refused_with_the_difference(void **state)
{
    nyb_journal j;
    nyb_err err;
    (void) state;
    write_journal();
    json_t *const run = run_of(3);
    assert_int_equal(nyb_journal_reopen(&j, folder, run, &err), NYB_E_ARG);
    assert_non_null(strstr(err.text, "settings.bits is 3, was 4"));
    json_decref(run);
}

static void damage_is_refused(void **state)
{
    static const char *const damages[] = {"{\"block\": 1}\n", "{\"block\": 7, \"layers\": []}\n",
                                          "not json\n"};
    (void) state;
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        nyb_arena arena = {0};
        nyb_journal j;
        nyb_err err;
        json_t *const run = run_of(4);
        char *const head = json_dumps(run, JSON_COMPACT | JSON_REAL_PRECISION(17));
        char *const text = nyb_arena_format(&arena, "%s\n%s", head, damages[i]);
        assert_int_equal(nyb_file_write(path_of(&arena), text, strlen(text), &err), NYB_OK);
        assert_int_equal(nyb_journal_reopen(&j, folder, run, &err), NYB_E_FORMAT);
        free(head);
        json_decref(run);
        nyb_arena_clear(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_prefix_is_its_whole_lines, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(another_run_is_refused_with_the_difference, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(damage_is_refused, make_folder, remove_folder),
    };
    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
