#include "tests/test.h"

#include <unistd.h>

#include "formats/npy.h"
#include "formats/safetensors.h"
#include "tests/formats/folder.h"

// An array file of version 1 with this header text and so many zero bytes of data.
static nyb_status parse(const char *text, size_t data, nyb_tensor *out, nyb_err *err)
{
    const size_t n = strlen(text);
    unsigned char *const at = calloc(10 + n + data, 1);
    assert_non_null(at);
    memcpy(at, "\x93NUMPY\1\0", 8);
    at[8] = (unsigned char) n;
    at[9] = (unsigned char) (n >> 8);
    memcpy(at + 10, text, n);
    const nyb_status status = nyb_npy_parse(out, at, 10 + n + data, "x.npy", err);
    free(at);
    return status;
}

static void good_headers_are_read(void **state)
{
    nyb_tensor t;
    (void) state;
    assert_ok(
        parse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n", 24, &t, err));
    assert_int_equal(t.dtype, NYB_F32);
    assert_int_equal(t.rank, 2);
    assert_int_equal(t.shape[0], 2);
    assert_int_equal(t.shape[1], 3);
    assert_int_equal(t.bytes, 24);
    assert_ok(parse("{\"shape\":(5,),\"descr\":\"|u1\",\"fortran_order\":True}", 5, &t, err));
    assert_int_equal(t.dtype, NYB_U8);
    assert_int_equal(t.rank, 1);
    assert_ok(parse("{'descr': '<i8', 'fortran_order': False, 'shape': (), }", 8, &t, err));
    assert_int_equal(t.rank, 0);
    assert_ok(parse("{'descr': '<f2', 'fortran_order': False, 'shape': (0, 7), }", 0, &t, err));
    assert_ok(parse("{'descr': '|b1', 'fortran_order': False, 'shape': (1,2,), }", 2, &t, err));
}

#define HEADER(descr, order, shape)                                                                \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }"

static void bad_headers_are_refused(void **state)
{
    static const struct {
        const char *text;
        size_t data;
        nyb_status status;
        const char *part;
    } cases[] = {
        {"", 0, NYB_E_FORMAT, "header"},
        {"{", 0, NYB_E_FORMAT, "header"},
        {"{}", 0, NYB_E_FORMAT, "header"},
        {"{'descr': '<f4', 'shape': (1,), }", 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4'", "False", "(1,)") "x", 4, NYB_E_FORMAT, "header"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4, NYB_E_FORMAT,
         "header"},
        {"{'descr': '<f4', 'more': 1, 'fortran_order': False, 'shape': (1,)}", 4, NYB_E_FORMAT,
         "header"},
        {HEADER("'<f4'", "false", "(1,)"), 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4'", "False", "(1)"), 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4'", "False", "(-1,)"), 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4'", "False", "(1"), 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4", "False", "(1,)"), 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4'", "False", "(99999999999999999999,)"), 4, NYB_E_FORMAT, "header"},
        {HEADER("'<f4'", "False", "(9223372036854775807, 4)"), 4, NYB_E_FORMAT, "overflows"},
        {HEADER("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)"), 4, NYB_E_UNSUPPORTED, "8 axes"},
        {HEADER("'>f4'", "False", "(1,)"), 4, NYB_E_UNSUPPORTED, ">f4"},
        {HEADER("'|O'", "False", "(1,)"), 4, NYB_E_UNSUPPORTED, "|O"},
        {HEADER("'<c8'", "False", "(1,)"), 8, NYB_E_UNSUPPORTED, "<c8"},
        {HEADER("'<U9'", "False", "(1,)"), 36, NYB_E_UNSUPPORTED, "<U9"},
        {HEADER("'|f4'", "False", "(1,)"), 4, NYB_E_UNSUPPORTED, "|f4"},
        {HEADER("''", "False", "(1,)"), 4, NYB_E_UNSUPPORTED, "''"},
        {HEADER("[('a', '<f4')]", "False", "(1,)"), 4, NYB_E_UNSUPPORTED, "records"},
        {HEADER("'<f4'", "True", "(2, 3)"), 24, NYB_E_UNSUPPORTED, "ascontiguousarray"},
        {HEADER("'<f4'", "False", "(2, 3)"), 23, NYB_E_FORMAT, "holds 23 bytes"},
        {HEADER("'<f4'", "False", "(2, 3)"), 25, NYB_E_FORMAT, "holds 25 bytes"},
    };
    nyb_tensor t;
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_fails(parse(cases[i].text, cases[i].data, &t, err), cases[i].status, cases[i].part);
    assert_fails(nyb_npy_parse(&t, "PK\3\4aaaaaaaaaaaa", 16, "x.npz", err), NYB_E_FORMAT,
                 "not a NumPy");
    assert_fails(nyb_npy_parse(&t, "", 0, "x", err), NYB_E_FORMAT, "not a NumPy");
    assert_fails(nyb_npy_parse(&t, "\x93NUMPY\4\0\0\0\0\0", 12, "x", err), NYB_E_UNSUPPORTED,
                 "version 4");
    assert_fails(nyb_npy_parse(&t, "\x93NUMPY\2\0\0\0", 10, "x", err), NYB_E_FORMAT, "cut off");
    assert_fails(nyb_npy_parse(&t, "\x93NUMPY\3\0\xff\xff\xff\xff", 12, "x", err), NYB_E_FORMAT,
                 "does not fit");
}

static void every_type_comes_back(void **state)
{
    uint64_t seed = 1;
    folder f;
    (void) state;
    folder_make(&f);
    const char *const path = folder_file(&f, "x.npy");
    for (unsigned i = 0; i < NYB_DTYPE_COUNT; i++) {
        for (unsigned rank = 0; rank <= NYB_MAX_RANK; rank++) {
            size_t shape[NYB_MAX_RANK];
            unsigned char bytes[2048];
            nyb_tensor t;
            nyb_npy back;
            for (unsigned k = 0; k < rank; k++)
                shape[k] = k < 3 ? nyb_random_below(&seed, 4) : 1;
            for (size_t k = 0; k < sizeof(bytes); k++)
                bytes[k] = (unsigned char) nyb_random_u64(&seed);
            assert_ok(nyb_tensor_describe(&t, "x", (nyb_dtype) i, rank, shape, err));
            t.at = bytes;
            if (i == NYB_BF16 || (i >= NYB_F8_E4M3 && i <= NYB_F8_E8M0)) {
                assert_fails(nyb_npy_save(path, &t, err), NYB_E_UNSUPPORTED, nyb_dtype_name(i));
                continue;
            }
            assert_ok(nyb_npy_save(path, &t, err));
            assert_ok(nyb_npy_open(&back, path, err));
            assert_int_equal(back.tensor.dtype, i);
            assert_int_equal(back.tensor.rank, rank);
            assert_memory_equal(back.tensor.shape, t.shape, sizeof(t.shape));
            assert_string_equal(back.tensor.name, path);
            if (t.bytes)
                assert_memory_equal(back.tensor.at, bytes, t.bytes);
            assert_int_equal((uintptr_t) back.tensor.at % 64, 0);
            nyb_npy_close(&back);
        }
    }
    folder_clear(&f);
}

// The file appears under its name only when it is whole.
static void pieces_make_a_whole_file(void **state)
{
    const size_t shape[] = {3, 2};
    const float rows[6] = {1, 2, 3, 4, 5, 6};
    nyb_npy_writer *w = NULL;
    nyb_tensor t;
    nyb_npy back;
    folder f;
    (void) state;
    folder_make(&f);
    const char *const path = folder_file(&f, "x.npy");
    assert_ok(nyb_tensor_describe(&t, "x", NYB_F32, 2, shape, err));
    assert_ok(nyb_npy_create(&w, path, &t, err));
    assert_ok(nyb_npy_append(w, rows, 8, err));
    assert_false(nyb_path_exists(path));
    assert_fails(nyb_npy_finish(w, err), NYB_E_SHAPE, "16 bytes are missing");
    assert_fails(nyb_npy_append(w, rows, 24, err), NYB_E_SHAPE, "8 bytes more");
    assert_ok(nyb_npy_append(w, rows + 2, 16, err));
    assert_ok(nyb_npy_finish(w, err));
    nyb_npy_discard(w);
    assert_ok(nyb_npy_open(&back, path, err));
    assert_memory_equal(back.tensor.at, rows, sizeof(rows));
    nyb_npy_close(&back);

    assert_ok(nyb_npy_create(&w, path, &t, err));
    nyb_npy_discard(w);
    assert_false(nyb_path_exists(folder_file(&f, "x.npy.part")));
    assert_true(nyb_path_exists(path));
    assert_fails(nyb_npy_create(&w, folder_file(&f, "no/x.npy"), &t, err), NYB_E_IO, "create");
    assert_fails(nyb_npy_open(&back, folder_file(&f, "no.npy"), err), NYB_E_IO, "no.npy");
    assert_null(back.owner);
    folder_clear(&f);
}

static void numbers_are_converted(void **state)
{
    static const struct {
        nyb_dtype dtype;
        unsigned char bytes[8];
        int64_t value;
    } cases[] = {
        {NYB_I8, {0xfe}, -2},
        {NYB_U8, {0xfe}, 254},
        {NYB_I16, {0xfe, 0xff}, -2},
        {NYB_U16, {0xfe, 0xff}, 65534},
        {NYB_I32, {0, 0, 0, 0x80}, INT32_MIN},
        {NYB_U32, {0, 0, 0, 0x80}, 2147483648},
        {NYB_I64, {0, 0, 0, 0, 0, 0, 0, 0x80}, INT64_MIN},
        {NYB_U64, {1, 0, 0, 0, 0, 0, 0, 0x40}, 4611686018427387905},
    };
    int64_t integer = 0;
    float real[2];
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const nyb_tensor t = {.name = "x", .dtype = cases[i].dtype, .at = cases[i].bytes};
        assert_ok(nyb_npy_integers(&integer, &t, 0, 1, err));
        assert_true(integer == cases[i].value);
        assert_fails(nyb_npy_floats(real, &t, 0, 1, err), NYB_E_UNSUPPORTED, "floats");
    }
    const uint64_t large = UINT64_MAX;
    const nyb_tensor u = {.name = "x", .dtype = NYB_U64, .at = &large};
    assert_fails(nyb_npy_integers(&integer, &u, 0, 1, err), NYB_E_FORMAT, "does not fit");

    const double d[] = {0.1, -1.5, 0.25};
    const nyb_tensor f64 = {.name = "x", .dtype = NYB_F64, .at = d};
    assert_ok(nyb_npy_floats(real, &f64, 1, 2, err));
    assert_true(real[0] == -1.5f && real[1] == 0.25f);
    const uint16_t halves[] = {0x3c00, 0xc000};
    const nyb_tensor f16 = {.name = "x", .dtype = NYB_F16, .at = halves};
    assert_ok(nyb_npy_floats(real, &f16, 0, 2, err));
    assert_true(real[0] == 1.0f && real[1] == -2.0f);
    assert_fails(nyb_npy_integers(&integer, &f16, 0, 1, err), NYB_E_UNSUPPORTED, "integers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_headers_are_read), cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(every_type_comes_back), cmocka_unit_test(pieces_make_a_whole_file),
        cmocka_unit_test(numbers_are_converted),
    };
    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
