#include "formats/hdf5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "tests/test.h"

enum { ROWS = 37, COLS = 11 };

typedef struct fixture {
    char folder[64], path[96], other[96];
    float values[ROWS * COLS];
    uint16_t halves[5];
    int8_t bytes[3];
    float scalar;
} fixture;

static void set_up(fixture *f)
{
    (void) snprintf(f->folder, sizeof(f->folder), "/tmp/nybble-hdf5-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void) snprintf(f->path, sizeof(f->path), "%s/a.h5", f->folder);
    (void) snprintf(f->other, sizeof(f->other), "%s/b.h5", f->folder);
    for (size_t i = 0; i < ROWS * COLS; i++)
        f->values[i] = (float) i / 7.0f;
    for (size_t i = 0; i < 5; i++)
        f->halves[i] = (uint16_t) (0x3f80 + i);
    memcpy(f->bytes, "\x80\x00\x7f", 3);
    f->scalar = 2.5f;
}

static void tear_down(const fixture *f)
{
    (void) unlink(f->path);
    (void) unlink(f->other);
    (void) rmdir(f->folder);
}

static void write_file(const fixture *f, const char *path)
{
    nyb_err err;
    nyb_hdf5_writer *w;
    const nyb_hdf5_storage pieces = {.chunk = {8, 4}, .deflate = 6, .checksum = true};
    const nyb_tensor plain = {.name = "a/b/0",
                              .dtype = NYB_F32,
                              .rank = 2,
                              .shape = {ROWS, COLS},
                              .at = f->values,
                              .bytes = sizeof(f->values)};
    const nyb_tensor half = {.name = "a/h",
                             .dtype = NYB_BF16,
                             .rank = 1,
                             .shape = {5},
                             .at = f->halves,
                             .bytes = sizeof(f->halves)};
    const nyb_tensor byte = {.name = "i",
                             .dtype = NYB_I8,
                             .rank = 1,
                             .shape = {3},
                             .at = f->bytes,
                             .bytes = sizeof(f->bytes)};
    const nyb_tensor scalar = {.name = "s", .dtype = NYB_F32, .at = &f->scalar, .bytes = 4};
    nyb_tensor packed = plain;
    packed.name = "a/b/1";
    json_t *const word = json_string("caf\xc3\xa9"), *const number = json_integer(-7);

    assert_int_equal(nyb_hdf5_create(&w, path, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put_group(w, "a/empty", &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &plain, NULL, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &packed, &pieces, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &half, NULL, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &byte, NULL, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &scalar, NULL, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &plain, NULL, &err), NYB_E_EXISTS);
    assert_int_equal(nyb_hdf5_put_attribute(w, "a", "name", word, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put_attribute(w, "a/b/0", "n", number, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_finish(w, &err), NYB_OK);
    json_decref(word);
    json_decref(number);
}

static void check_array(nyb_hdf5 *file, const char *path, nyb_dtype dtype, const void *want,
                        size_t bytes)
{
    nyb_err err;
    nyb_tensor t;
    assert_int_equal(nyb_hdf5_read(file, path, &t, &err), NYB_OK);
    assert_int_equal(t.dtype, dtype);
    assert_int_equal(t.bytes, bytes);
    assert_memory_equal(t.at, want, bytes);
}

static void what_is_written_is_read(void **state)
{
    (void) state;
    static const char *const paths[] = {"",        "a",   "a/b", "a/b/0", "a/b/1",
                                        "a/empty", "a/h", "i",   "s"};
    fixture f;
    nyb_err err;
    nyb_hdf5 *file;
    size_t count;
    set_up(&f);
    write_file(&f, f.path);
    assert_int_equal(nyb_hdf5_open(&file, f.path, &err), NYB_OK);
    const nyb_hdf5_item *const items = nyb_hdf5_items(file, &count);
    assert_int_equal(count, sizeof(paths) / sizeof(paths[0]));
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(items[i].path, paths[i]);
        assert_ptr_equal(nyb_hdf5_find(file, paths[i]), &items[i]);
    }
    check_array(file, "a/b/0", NYB_F32, f.values, sizeof(f.values));
    check_array(file, "a/b/1", NYB_F32, f.values, sizeof(f.values));
    check_array(file, "a/h", NYB_BF16, f.halves, sizeof(f.halves));
    check_array(file, "i", NYB_I8, f.bytes, sizeof(f.bytes));
    check_array(file, "s", NYB_F32, &f.scalar, sizeof(f.scalar));
    assert_true(items[5].is_group);
    assert_int_equal(items[3].tensor.rank, 2);
    assert_int_equal(items[8].tensor.rank, 0);
    assert_string_equal(json_string_value(json_object_get(items[1].attributes, "name")),
                        "caf\xc3\xa9");
    assert_int_equal(json_integer_value(json_object_get(items[3].attributes, "n")), -7);
    assert_null(nyb_hdf5_find(file, "a/b/2"));
    nyb_hdf5_close(file);
    tear_down(&f);
}

static void the_same_calls_give_the_same_bytes(void **state)
{
    (void) state;
    fixture f;
    nyb_err err;
    nyb_map first, second;
    set_up(&f);
    write_file(&f, f.path);
    (void) sleep(1); // a time in the file would be another one now
    write_file(&f, f.other);
    assert_int_equal(nyb_map_open(&first, f.path, &err), NYB_OK);
    assert_int_equal(nyb_map_open(&second, f.other, &err), NYB_OK);
    assert_int_equal(first.bytes, second.bytes);
    assert_memory_equal(first.at, second.at, first.bytes);
    nyb_map_close(&first);
    nyb_map_close(&second);
    tear_down(&f);
}

// Bytes of pieces changed here and there. The file's own tables have no sums, but pieces have.
static void a_damaged_piece_is_told(void **state)
{
    (void) state;
    enum { COUNT = 1 << 15, STEPS = 40 };
    fixture f;
    nyb_err err;
    nyb_hdf5_writer *w;
    nyb_map map;
    uint64_t seed = 3;
    size_t told = 0;
    float *const values = malloc(COUNT * sizeof(float));
    assert_non_null(values);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = test_uniform(&seed);
    const nyb_hdf5_storage pieces = {.chunk = {COUNT}, .checksum = true};
    const nyb_tensor t = {.name = "x",
                          .dtype = NYB_F32,
                          .rank = 1,
                          .shape = {COUNT},
                          .at = values,
                          .bytes = COUNT * sizeof(float)};
    set_up(&f);
    assert_int_equal(nyb_hdf5_create(&w, f.path, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_put(w, &t, &pieces, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_finish(w, &err), NYB_OK);
    assert_int_equal(nyb_map_open(&map, f.path, &err), NYB_OK);
    const size_t bytes = map.bytes;
    char *const copy = malloc(bytes);
    assert_non_null(copy);
    memcpy(copy, map.at, bytes);
    nyb_map_close(&map);
    for (size_t i = 0; i < STEPS; i++) {
        const size_t at = bytes - t.bytes + i * (t.bytes / STEPS);
        nyb_hdf5 *file = NULL;
        nyb_tensor got;
        copy[at] = (char) (copy[at] ^ 0x55);
        assert_int_equal(nyb_file_write(f.other, copy, bytes, &err), NYB_OK);
        copy[at] = (char) (copy[at] ^ 0x55);
        if (nyb_hdf5_open(&file, f.other, &err) == NYB_OK &&
            nyb_hdf5_read(file, "x", &got, &err) == NYB_E_FORMAT) {
            assert_non_null(strstr(err.text, "'x'"));
            told++;
        }
        nyb_hdf5_close(file);
    }
    free(copy);
    free(values);
    print_message("%zu of %d changes told\n", told, STEPS);
    assert_true(told >= STEPS * 9 / 10);
    tear_down(&f);
}

static void other_files_are_refused(void **state)
{
    (void) state;
    fixture f;
    nyb_err err;
    nyb_hdf5 *file;
    set_up(&f);
    assert_int_equal(nyb_hdf5_open(&file, f.path, &err), NYB_E_IO);
    assert_int_equal(nyb_file_write(f.path, "plain text", 10, &err), NYB_OK);
    assert_int_equal(nyb_hdf5_open(&file, f.path, &err), NYB_E_FORMAT);
    assert_int_equal(nyb_file_write(f.path, "\211HDF\r\n\032\n and nothing more", 24, &err),
                     NYB_OK);
    assert_int_equal(nyb_hdf5_open(&file, f.path, &err), NYB_E_FORMAT);
    assert_null(file);
    assert_non_null(strstr(err.text, f.path));
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(the_same_calls_give_the_same_bytes),
        cmocka_unit_test(a_damaged_piece_is_told),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
