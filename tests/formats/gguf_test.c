#include "tests/test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/gguf.h"
#include "formats/gguf_types.h"
#include "tests/formats/folder.h"

// A file under construction, byte by byte, so that each field can be wrong.
typedef struct bytes {
    unsigned char at[4096];
    size_t count;
} bytes;

static void put(bytes *b, const void *from, size_t n)
{
    assert_true(b->count + n <= sizeof(b->at));
    memcpy(b->at + b->count, from, n);
    b->count += n;
}

static void put_u32(bytes *b, uint32_t v)
{
    put(b, &v, sizeof(v));
}

static void put_u64(bytes *b, uint64_t v)
{
    put(b, &v, sizeof(v));
}

static void put_text(bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static bytes begin(const char *magic, uint32_t version, uint64_t tensors, uint64_t keys)
{
    bytes b = {.count = 0};
    put(&b, magic, 4);
    put_u32(&b, version);
    put_u64(&b, tensors);
    put_u64(&b, keys);
    return b;
}

static void put_tensor(bytes *b, const char *name, uint32_t rank, const uint64_t *shape,
                       uint32_t type, uint64_t offset)
{
    put_text(b, name);
    put_u32(b, rank);
    for (uint32_t i = 0; i < rank; i++)
        put_u64(b, shape[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

static void pad(bytes *b, size_t alignment, size_t data)
{
    static const unsigned char zeros[1024];
    put(b, zeros, (alignment - b->count % alignment) % alignment + data);
}

static void refused(const bytes *b, nyb_status status, const char *part)
{
    nyb_gguf file;
    nyb_err err = {0};
    const nyb_status got = nyb_gguf_parse(&file, b->at, b->count, "x.gguf", &err);
    if (got != status || !strstr(err.text, part))
        fail_msg("got %s '%s', want %s with '%s'", nyb_status_name(got), err.text,
                 nyb_status_name(status), part);
    assert_null(file.arena.last);
}

static void heads_are_checked(void **state)
{
    (void) state;
    bytes b = begin("GGML", 3, 0, 0);
    refused(&b, NYB_E_FORMAT, "not a GGUF");
    b = begin("GGUF", 1, 0, 0);
    refused(&b, NYB_E_UNSUPPORTED, "version 1");
    b = begin("GGUF", 4, 0, 0);
    refused(&b, NYB_E_FORMAT, "version 4");
    b = begin("GGUF", 0, 0, 0);
    refused(&b, NYB_E_FORMAT, "version 0");
    b = begin("GGUF", 3u << 24, 0, 0);
    refused(&b, NYB_E_UNSUPPORTED, "big-endian");
    b = begin("GGUF", 3, 1, 0);
    refused(&b, NYB_E_FORMAT, "1 tensors do not fit");
    b = begin("GGUF", 3, 0, UINT64_MAX);
    refused(&b, NYB_E_FORMAT, "keys do not fit");
    for (size_t n = 0; n < 24; n++) {
        b = begin("GGUF", 3, 0, 0);
        b.count = n;
        refused(&b, NYB_E_FORMAT, n < 4 ? "not a GGUF" : "ends within");
    }
}

static void values_are_checked(void **state)
{
    (void) state;
    static const struct {
        const char *key;
        uint32_t type, of;
        uint64_t count;
        const char *part;
        nyb_status status;
    } cases[] = {
        {"", 4, 0, 0, "0 bytes", NYB_E_FORMAT},
        {"a\nb", 4, 0, 0, "control character", NYB_E_FORMAT},
        {"\xff\xfe", 4, 0, 0, "UTF-8", NYB_E_FORMAT},
        {"k", 13, 0, 0, "type 13", NYB_E_FORMAT},
        {"k", 9, 9, 0, "array of arrays", NYB_E_UNSUPPORTED},
        {"k", 9, 77, 0, "type 77", NYB_E_FORMAT},
        {"k", 9, 4, UINT64_MAX / 2, "ends within k", NYB_E_FORMAT},
        {"k", 9, 8, UINT64_MAX / 8, "array of strings", NYB_E_FORMAT},
        {"k", 9, 8, 2, "ends within k", NYB_E_FORMAT},
        {"k", 10, 0, 0, "ends within k", NYB_E_FORMAT},
        {"k", 8, 0, UINT64_MAX, "ends within k", NYB_E_FORMAT},
        {"k", 7, 0, 0, "a bool is 0 or 1", NYB_E_FORMAT},
        {"general.alignment", 4, 24, 0, "is 24", NYB_E_FORMAT},
        {"general.alignment", 4, 0, 0, "is 0", NYB_E_FORMAT},
        {"general.alignment", 5, 32, 0, "is 32", NYB_E_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bytes b = begin("GGUF", 3, 0, 1);
        put_text(&b, cases[i].key);
        put_u32(&b, cases[i].type);
        if (cases[i].type == 9 || cases[i].type == 4 || cases[i].type == 5)
            put_u32(&b, cases[i].of);
        if (cases[i].type == 9 || cases[i].type == 8)
            put_u64(&b, cases[i].count);
        if (cases[i].type == 7)
            put(&b, "\2", 1);
        if (cases[i].type == 10 || cases[i].type == 13)
            pad(&b, 1, 1);
        if (cases[i].of == 8 && cases[i].count == 2) {
            put_u64(&b, 100);
            put_u64(&b, 0);
        }
        refused(&b, cases[i].status, cases[i].part);
    }
    bytes b = begin("GGUF", 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_text(&b, "same");
        put_u32(&b, 4);
        put_u32(&b, 1);
    }
    refused(&b, NYB_E_FORMAT, "there twice");
}

static void tensors_are_checked(void **state)
{
    (void) state;
    static const struct {
        const char *name;
        uint32_t rank;
        uint64_t shape[5];
        uint32_t type;
        uint64_t offset;
        size_t data;
        nyb_status status;
        const char *part;
    } cases[] = {
        {"", 1, {4}, 0, 0, 16, NYB_E_FORMAT, "0 bytes"},
        {"0123456789012345678901234567890123456789012345678901234567890123",
         1,
         {4},
         0,
         0,
         16,
         NYB_E_FORMAT,
         "64 bytes"},
        {"t", 5, {1, 1, 1, 1, 1}, 0, 0, 16, NYB_E_FORMAT, "5 axes"},
        {"t", 1, {UINT64_MAX}, 0, 0, 16, NYB_E_FORMAT, "axis of -1"},
        {"t", 3, {1u << 31, 1u << 31, 4}, 0, 0, 16, NYB_E_FORMAT, "overflows"},
        {"t", 1, {4}, 99, 0, 16, NYB_E_FORMAT, "type 99"},
        {"t", 1, {4}, 4, 0, 16, NYB_E_FORMAT, "type 4"},
        {"t", 1, {256}, 16, 0, 66, NYB_E_UNSUPPORTED, "IQ2_XXS"},
        {"t", 1, {33}, 2, 0, 36, NYB_E_FORMAT, "blocks of 32"},
        {"t", 1, {128}, 12, 0, 144, NYB_E_FORMAT, "blocks of 256"},
        {"t", 1, {4}, 0, 32, 64, NYB_E_FORMAT, "starts at byte 32"},
        {"t", 1, {4}, 0, 1, 64, NYB_E_FORMAT, "starts at byte 1"},
        {"t", 1, {4}, 0, 0, 15, NYB_E_FORMAT, "cut off"},
        {"t", 1, {1ull << 40}, 0, 0, 64, NYB_E_FORMAT, "cut off"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bytes b = begin("GGUF", 3, 1, 0);
        put_tensor(&b, cases[i].name, cases[i].rank, cases[i].shape, cases[i].type,
                   cases[i].offset);
        pad(&b, 32, cases[i].data);
        refused(&b, cases[i].status, cases[i].part);
    }
    bytes b = begin("GGUF", 2, 2, 0);
    put_tensor(&b, "t", 1, (uint64_t[]){4}, 0, 0);
    put_tensor(&b, "t", 1, (uint64_t[]){4}, 0, 32);
    pad(&b, 32, 48);
    refused(&b, NYB_E_FORMAT, "there twice");
}

static void good_files_are_read(void **state)
{
    (void) state;
    nyb_gguf file;
    bytes b = begin("GGUF", 2, 3, 1);
    put_text(&b, "general.alignment");
    put_u32(&b, 4);
    put_u32(&b, 64);
    put_tensor(&b, "a", 2, (uint64_t[]){32, 3}, 2, 0);
    put_tensor(&b, "b", 1, (uint64_t[]){0}, 0, 64);
    put_tensor(&b, "c", 0, NULL, 0, 64);
    pad(&b, 64, 68);
    assert_ok(nyb_gguf_parse(&file, b.at, b.count, "x.gguf", err));
    assert_int_equal(file.count, 3);
    assert_int_equal(file.tensors[0].shape[0], 3);
    assert_int_equal(file.tensors[0].shape[1], 32);
    assert_int_equal(file.tensors[0].bytes, 54);
    assert_int_equal(file.tensors[1].bytes, 0);
    assert_int_equal(file.tensors[2].bytes, 4);
    assert_ptr_equal(file.tensors[2].at, b.at + b.count - 4);
    nyb_gguf_close(&file);
}

static void heads_are_written(void **state)
{
    (void) state;
    nyb_gguf_head head = {0};
    nyb_gguf file;
    const nyb_gguf_text texts[] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    const char *const names[] = {"x.weight", "y.weight"};
    size_t offsets[2], end = 0, size = 0;
    double real = 0.0;
    bool on = false;
    nyb_gguf_text text;
    nyb_tensor tensors[2] = {{.dtype = NYB_Q5_1, .rank = 2, .shape = {3, 64}},
                             {.dtype = NYB_BF16, .rank = 1, .shape = {5}}};
    nyb_gguf_add_u32(&head, "u", 7);
    nyb_gguf_add_f32(&head, "f", 0.5f);
    nyb_gguf_add_bool(&head, "b", true);
    nyb_gguf_add_text(&head, "t", "text");
    nyb_gguf_add_texts(&head, "ts", texts, 3);
    nyb_gguf_add_i32s(&head, "is", (const int32_t[]){-1, 2}, 2);
    nyb_gguf_add_f32s(&head, "fs", (const float[]){1.5f}, 1);
    assert_ok(nyb_gguf_finish(&head, tensors, names, 2, offsets, &end, err));
    assert_int_equal(offsets[0] % 32, 0);
    assert_int_equal(offsets[1], offsets[0] + 160);
    assert_int_equal(end, offsets[1] + 32);

    unsigned char *const whole = calloc(end, 1);
    memcpy(whole, head.at, head.length);
    assert_ok(nyb_gguf_parse(&file, whole, end, "x.gguf", err));
    assert_int_equal(file.value_count, 7);
    assert_ok(nyb_gguf_size(&file, "u", &size, err));
    assert_ok(nyb_gguf_real(&file, "f", &real, err));
    assert_ok(nyb_gguf_bool(&file, "b", &on, err));
    assert_ok(nyb_gguf_string(&file, "t", &text, err));
    assert_int_equal(size, 7);
    assert_true(real == 0.5 && on && text.length == 4);
    assert_int_equal(nyb_gguf_find(&file, "ts")->texts[2].length, 3);
    assert_int_equal(nyb_gguf_integer(nyb_gguf_find(&file, "is"), 0), -1);
    assert_string_equal(file.tensors[1].name, "y.weight");
    assert_int_equal(nyb_gguf_size(&file, "t", &size, NULL), NYB_E_FORMAT);
    assert_int_equal(nyb_gguf_bool(&file, "u", &on, NULL), NYB_E_FORMAT);
    assert_ok(nyb_gguf_size(&file, "missing", &size, err));
    nyb_gguf_close(&file);
    free(whole);
    nyb_gguf_head_clear(&head);

    const char *const twice[] = {"x", "x"};
    assert_int_equal(nyb_gguf_finish(&head, tensors, twice, 2, offsets, &end, NULL), NYB_E_ARG);
    nyb_gguf_head_clear(&head);
    tensors[0].dtype = NYB_U8;
    assert_int_equal(nyb_gguf_finish(&head, tensors, names, 2, offsets, &end, NULL),
                     NYB_E_UNSUPPORTED);
    nyb_gguf_head_clear(&head);
}

static void types_have_numbers(void **state)
{
    (void) state;
    size_t known = 0;
    for (uint32_t t = 0; t < 64; t++) {
        const char *name = NULL;
        const int dtype = nyb_gguf_dtype_of(t, &name);
        assert_true(dtype < 0 || (name && strcmp(name, nyb_dtype_name((nyb_dtype) dtype)) == 0));
        assert_true(dtype < 0 || nyb_gguf_type_of((nyb_dtype) dtype) == (int) t);
        known += dtype >= 0;
    }
    assert_int_equal(known, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_checked),   cmocka_unit_test(values_are_checked),
        cmocka_unit_test(tensors_are_checked), cmocka_unit_test(good_files_are_read),
        cmocka_unit_test(heads_are_written),   cmocka_unit_test(types_have_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
