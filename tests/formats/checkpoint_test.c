#include "tests/test.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/json.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "formats/store.h"
#include "tests/formats/folder.h"

// A file of this header and this many zero bytes of data.
static unsigned char *make(const char *header, size_t data, size_t *length)
{
    const size_t n = strlen(header);
    unsigned char *const at = calloc(8 + n + data + 1, 1);
    assert_non_null(at);
    for (unsigned i = 0; i < 8; i++)
        at[i] = (unsigned char) (n >> (8 * i));
    memcpy(at + 8, header, n);
    *length = 8 + n + data;
    return at;
}

static nyb_status parse(const char *header, size_t data, nyb_err *err)
{
    nyb_safetensors file;
    size_t length = 0;
    unsigned char *const at = make(header, data, &length);
    const nyb_status status = nyb_safetensors_parse(&file, at, length, "file", err);
    if (status != NYB_OK)
        assert_null(file.tensors);
    nyb_safetensors_close(&file);
    free(at);
    return status;
}

#define T(dtype, shape, begin, end)                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void good_headers_are_read(void **state)
{
    (void) state;
    assert_ok(parse("{}", 0, err));
    assert_ok(parse("{\"a\":" T("F32", "[2,3]", "0", "24") "}", 24, err));
    assert_ok(parse("{\"a\":" T("F32", "[2,3]", "0", "24") "}   ", 24, err));
    assert_ok(parse("  {\"a\":" T("F32", "[]", "0", "4") "}\n", 4, err));
    assert_ok(
        parse("{\"__metadata__\":{\"a\":\"b\"},\"x\":" T("BOOL", "[1]", "0", "1") "}", 1, err));
    // Empty tensors may stand anywhere, even where another one starts or at the end.
    assert_ok(parse("{\"b\":" T("I64", "[0,7]", "0", "0") ",\"a\":" T(
                        "U8", "[3]", "0", "3") ","
                                               "\"c\":" T("F64", "[0]", "3", "3") "}",
                    3, err));
    assert_ok(
        parse("{\"b\":" T("F8_E4M3", "[2]", "2", "4") ",\"a\":" T("F8_E5M2", "[2]", "0", "2") "}",
              4, err));
}

static void bad_headers_are_refused(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        nyb_status status;
        const char *part;
    } cases[] = {
        {"", 0, NYB_E_FORMAT, "not JSON"},
        {"[]", 0, NYB_E_FORMAT, "not a JSON object"},
        {"{\"a\":" T("F32", "[2]", "0", "8"), 8, NYB_E_FORMAT, "not JSON"},
        {"{} x", 0, NYB_E_FORMAT, "not JSON"},
        {"{\"a\xff\":" T("F32", "[2]", "0", "8") "}", 8, NYB_E_FORMAT, "not JSON"},
        {"{\"a\":" T("F32", "[1]", "0", "4") ",\"a\":" T("F32", "[1]", "4", "8") "}", 8,
         NYB_E_FORMAT, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         NYB_E_FORMAT, "duplicate"},
        {"{\"a\":3}", 0, NYB_E_FORMAT, "'a' is not an object"},
        {"{\"a\":" T("F33", "[1]", "0", "4") "}", 4, NYB_E_FORMAT, "unknown dtype 'F33'"},
        {"{\"a\":" T("F32\\u0000", "[1]", "0", "4") "}", 4, NYB_E_FORMAT, "unknown dtype"},
        {"{\"a\":" T("F4", "[2]", "0", "1") "}", 1, NYB_E_UNSUPPORTED, "F4"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, NYB_E_UNSUPPORTED, "9 axes"},
        {"{\"a\":" T("F32", "3", "0", "4") "}", 4, NYB_E_FORMAT, "no shape"},
        {"{\"a\":" T("F32", "[-1]", "0", "4") "}", 4, NYB_E_FORMAT, "whole numbers"},
        {"{\"a\":" T("F32", "[1.0]", "0", "4") "}", 4, NYB_E_FORMAT, "whole numbers"},
        {"{\"a\":" T("F32", "[\"1\"]", "0", "4") "}", 4, NYB_E_FORMAT, "whole numbers"},
        {"{\"a\":" T("F32", "[4611686018427387904,2]", "0", "0") "}", 0, NYB_E_FORMAT, "overflows"},
        {"{\"a\":" T("F32", "[4611686018427387904]", "0", "0") "}", 0, NYB_E_FORMAT, "overflows"},
        {"{\"a\":" T("F32", "[18446744073709551616]", "0", "0") "}", 0, NYB_E_FORMAT, "not JSON"},
        {"{\"a\":" T("F32", "[1]", "4", "0") "}", 4, NYB_E_FORMAT, "lies at [4, 0)"},
        {"{\"a\":" T("F32", "[1]", "0", "8") "}", 4, NYB_E_FORMAT, "cut off"},
        {"{\"a\":" T("F32", "[1]", "9223372036854775803", "9223372036854775807") "}", 4,
         NYB_E_FORMAT, "cut off"},
        {"{\"a\":" T("F32", "[1]", "0", "5") "}", 5, NYB_E_FORMAT, "has 5 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, NYB_E_FORMAT, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, NYB_E_FORMAT,
         "data_offsets"},
        {"{\"a\":" T("U8", "[1]", "0", "1") ",\"b\":" T("U8", "[1]", "2", "3") "}", 3, NYB_E_FORMAT,
         "hole"},
        {"{\"a\":" T("U8", "[1]", "1", "2") "}", 2, NYB_E_FORMAT, "hole"},
        {"{\"a\":" T("U8", "[2]", "0", "2") ",\"b\":" T("U8", "[2]", "1", "3") "}", 3, NYB_E_FORMAT,
         "inside a tensor"},
        {"{\"a\":" T("U8", "[2]", "0", "2") ",\"b\":" T("U8", "[2]", "0", "2") "}", 2, NYB_E_FORMAT,
         "inside a tensor"},
        {"{\"a\":" T("U8", "[2]", "0", "2") ",\"b\":" T("U8", "[0]", "1", "1") "}", 2, NYB_E_FORMAT,
         "inside a tensor"},
        {"{\"a\":" T("U8", "[2]", "0", "2") "}", 3, NYB_E_FORMAT, "1 bytes follow"},
        {"{\"__metadata__\":3}", 0, NYB_E_FORMAT, "'__metadata__'"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, NYB_E_FORMAT, "'a' is not a string"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_fails(parse(cases[i].header, cases[i].data, err), cases[i].status, cases[i].part);
}

static nyb_status parse_bytes(const void *bytes, size_t length, nyb_err *err)
{
    nyb_safetensors file;
    const nyb_status status = nyb_safetensors_parse(&file, bytes, length, "file", err);
    nyb_safetensors_close(&file);
    return status;
}

static void bad_lengths_are_refused(void **state)
{
    (void) state;
    assert_fails(parse_bytes("", 0, err), NYB_E_FORMAT, "too few");
    assert_fails(parse_bytes("\3\0\0\0\0\0\0\0{}", 10, err), NYB_E_FORMAT, "does not fit");
    assert_fails(parse_bytes("\1\341\365\5\0\0\0\0{}", 10, err), NYB_E_FORMAT, "limit");
    assert_fails(parse_bytes("\2\0\0\0\0\0\0\x80{}", 10, err), NYB_E_FORMAT, "limit");
    assert_fails(parse_bytes("\377\377\377\377\377\377\377\377{}", 10, err), NYB_E_FORMAT, "limit");
    assert_fails(parse_bytes("GGUF\3\0\0\0\0\0", 10, err), NYB_E_FORMAT, "GGUF");
    assert_fails(parse_bytes("PK\3\4aaaaaaaaaa", 14, err), NYB_E_FORMAT, "pickle");
    assert_fails(parse_bytes("version https://git-lfs.github.com/spec/v1", 42, err), NYB_E_FORMAT,
                 "git lfs pull");
}

// Every shorter version of a good file is refused. The copy is exactly as long as it says, so
// that a sanitizer sees a read past it.
static void every_truncation_is_refused(void **state)
{
    (void) state;
    size_t length = 0;
    unsigned char *const whole =
        make("{\"a\":" T("F32", "[2,3]", "0", "24") ",\"b\":" T("I8", "[5]", "24", "29") "}  ", 29,
             &length);
    for (size_t n = 0; n <= length; n++) {
        unsigned char *const part = malloc(n ? n : 1);
        memcpy(part, whole, n);
        const nyb_status status = parse_bytes(part, n, NULL);
        assert_int_equal(status, n == length ? NYB_OK : NYB_E_FORMAT);
        free(part);
    }
    free(whole);
}

// ---- Folders --------------------------------------------------------------------------------

static nyb_status open_once(const char *path, nyb_err *err)
{
    nyb_checkpoint *c = NULL;
    const nyb_status status = nyb_checkpoint_open(&c, path, err);
    assert_int_equal(status == NYB_OK, c != NULL);
    nyb_checkpoint_close(c);
    return status;
}

static void write_shard(folder *f, const char *name, const char *header, size_t data)
{
    size_t length = 0;
    unsigned char *const at = make(header, data, &length);
    folder_write(f, name, at, length);
    free(at);
}

static void write_text(folder *f, const char *name, const char *text)
{
    folder_write(f, name, text, strlen(text));
}

static const char index_file[] = "model.safetensors.index.json";
static const char one_tensor[] = "{\"a\":" T("U8", "[2]", "0", "2") "}";
static const char other_tensor[] = "{\"b\":" T("U8", "[2]", "0", "2") "}";

static void folders_say_what_they_hold(void **state)
{
    folder f;
    (void) state;
    folder_make(&f);
    assert_fails(open_once(folder_file(&f, "none"), err), NYB_E_IO, "No such file");
    assert_fails(open_once(f.path, err), NYB_E_IO, "no *.safetensors");
    write_text(&f, "config.json", "{}");
    write_text(&f, "model.gguf", "GGUF");
    assert_fails(open_once(f.path, err), NYB_E_UNSUPPORTED, "GGUF");
    assert_fails(open_once(folder_file(&f, "model.gguf"), err), NYB_E_FORMAT, "the version");
    assert_fails(open_once(folder_file(&f, "config.json"), err), NYB_E_FORMAT, "config.json");
    assert_int_equal(unlink(folder_file(&f, "model.gguf")), 0);
    write_text(&f, "pytorch_model.bin", "PK\3\4");
    assert_fails(open_once(f.path, err), NYB_E_UNSUPPORTED, "save_pretrained");

    write_shard(&f, "adapter_model.safetensors", one_tensor, 2);
    assert_fails(open_once(f.path, err), NYB_E_UNSUPPORTED, "adapter");
    write_shard(&f, "x.safetensors", one_tensor, 2);
    assert_fails(open_once(f.path, err), NYB_E_FORMAT, "2 *.safetensors");
    assert_ok(open_once(folder_file(&f, "x.safetensors"), err));
    write_shard(&f, "model.safetensors", one_tensor, 2);
    assert_ok(open_once(f.path, err));
    folder_clear(&f);
}

static void indexes_are_checked(void **state)
{
    static const struct {
        const char *index, *part;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "not the name"},
        {"{\"weight_map\":{\"a\":\"/etc/one.safetensors\"}}", "not the name"},
        {"{\"weight_map\":{\"a\":\".one.safetensors\"}}", "not the name"},
        {"{\"weight_map\":{\"a\":\"one.bin\"}}", "not the name"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\\u0000.safetensors\"}}", "not the name"},
        {"{\"weight_map\":{\"a\":3}}", "not a string"},
        {"{\"weight_map\":{}}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{}", "weight_map"},
        {"[]", "weight_map"},
        {"{", "not JSON"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}", "duplicate"},
        {"{\"weight_map\":{\"b\":\"one.safetensors\"}}", "'a' is not listed"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}", "lists in"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"one.safetensors\"}}",
         "lists tensor 'c'"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"copy.safetensors\"}}", "'a', which"},
    };
    folder f;
    (void) state;
    folder_make(&f);
    write_shard(&f, "one.safetensors", one_tensor, 2);
    write_shard(&f, "two.safetensors", other_tensor, 2);
    write_shard(&f, "copy.safetensors", one_tensor, 2);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text(&f, index_file, cases[i].index);
        assert_fails(open_once(f.path, err), NYB_E_FORMAT, cases[i].part);
    }
    write_text(&f, index_file,
               "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"gone.safetensors\"}}");
    assert_fails(open_once(f.path, err), NYB_E_IO, "gone.safetensors");
    write_text(&f, index_file,
               "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    assert_ok(open_once(f.path, err));
    write_shard(&f, "model.safetensors", one_tensor, 2);
    assert_fails(open_once(f.path, err), NYB_E_FORMAT, "stale");
    folder_clear(&f);
}

// ---- Writing --------------------------------------------------------------------------------

enum { TENSORS = 23 };

typedef struct set {
    nyb_arena arena;
    nyb_tensor tensors[TENSORS];
} set;

// Tensors of every type and of random shapes, empty ones among them, with random bytes.
static void set_make(set *s, uint64_t *seed)
{
    *s = (set){0};
    for (unsigned i = 0; i < TENSORS; i++) {
        size_t shape[NYB_MAX_RANK];
        const unsigned rank = (unsigned) nyb_random_below(seed, 4);
        for (unsigned k = 0; k < rank; k++)
            shape[k] = (size_t) nyb_random_below(seed, 9);
        const char *const name = nyb_arena_format(&s->arena, "t%u.\"\xc3\xa4\" %u",
                                                  (unsigned) nyb_random_below(seed, 99), i);
        assert_ok(nyb_tensor_describe(&s->tensors[i], name, (nyb_dtype) (i % NYB_DTYPE_COUNT), rank,
                                      shape, err));
        unsigned char *const at = nyb_arena_alloc(&s->arena, s->tensors[i].bytes, 1);
        for (size_t k = 0; k < s->tensors[i].bytes; k++)
            at[k] = (unsigned char) nyb_random_u64(seed);
        s->tensors[i].at = at;
    }
}

static void check_read_back(const set *s, const char *path)
{
    nyb_checkpoint *c = NULL;
    assert_ok(nyb_checkpoint_open(&c, path, err));
    assert_int_equal(nyb_checkpoint_count(c), TENSORS);
    for (unsigned i = 0; i < TENSORS; i++) {
        const nyb_tensor *const want = &s->tensors[i], *got = NULL;
        assert_ok(nyb_checkpoint_get(&got, c, want->name, err));
        assert_int_equal(got->dtype, want->dtype);
        assert_int_equal(got->rank, want->rank);
        assert_memory_equal(got->shape, want->shape, sizeof(got->shape));
        assert_int_equal(got->bytes, want->bytes);
        if (want->bytes)
            assert_memory_equal(got->at, want->at, want->bytes);
        assert_non_null(strstr(nyb_checkpoint_file_of(c, got), ".safetensors"));
    }
    assert_null(nyb_checkpoint_find(c, "nothing"));
    const nyb_tensor *got = NULL;
    assert_fails(nyb_checkpoint_get(&got, c, "nothing", err), NYB_E_FORMAT, "'nothing'");
    for (size_t i = 1; i < nyb_checkpoint_count(c); i++)
        assert_true(strcmp(nyb_checkpoint_at(c, i - 1)->name, nyb_checkpoint_at(c, i)->name) < 0);
    nyb_checkpoint_close(c);
}

static void stores_are_read_back(void **state)
{
    static const size_t limits[] = {0, 1, 300, 1000, 1 << 20};
    uint64_t seed = 5;
    (void) state;
    for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
        folder f;
        set s;
        nyb_store *store = NULL;
        folder_make(&f);
        set_make(&s, &seed);
        assert_ok(nyb_store_create(&store, f.path, s.tensors, TENSORS, limits[l], err));
        if (limits[l] == 300)
            assert_true(nyb_store_files(store) > 2);
        // Out of order, and the second half in a second run.
        for (unsigned i = TENSORS; i-- > TENSORS / 2;)
            assert_ok(
                nyb_store_put(store, s.tensors[i].name, s.tensors[i].at, s.tensors[i].bytes, err));
        assert_fails(nyb_store_finish(store, err), NYB_E_ARG, "never written");
        nyb_store_close(store);
        assert_fails(nyb_store_create(&store, f.path, s.tensors, TENSORS, limits[l], err),
                     NYB_E_EXISTS, "already exists");
        assert_ok(nyb_store_reopen(&store, f.path, s.tensors, TENSORS, limits[l], err));
        for (unsigned i = TENSORS; i-- > TENSORS / 2;)
            assert_ok(nyb_store_mark(store, s.tensors[i].name, err));
        for (unsigned i = 0; i < TENSORS / 2; i++)
            assert_ok(
                nyb_store_put(store, s.tensors[i].name, s.tensors[i].at, s.tensors[i].bytes, err));
        assert_true(nyb_store_was_put(store, s.tensors[0].name));
        assert_ok(nyb_store_finish(store, err));
        nyb_store_close(store);
        check_read_back(&s, f.path);
        nyb_arena_clear(&s.arena);
        folder_clear(&f);
    }
}

static void stores_refuse_wrong_use(void **state)
{
    const size_t shape[] = {2};
    nyb_tensor t[2];
    nyb_store *store = NULL;
    folder f;
    (void) state;
    folder_make(&f);
    assert_ok(nyb_tensor_describe(&t[0], "a", NYB_U8, 1, shape, err));
    t[1] = t[0];
    assert_fails(nyb_store_create(&store, f.path, t, 2, 0, err), NYB_E_ARG, "used twice");
    assert_fails(nyb_store_create(&store, f.path, t, 2, 1, err), NYB_E_ARG, "used twice");
    assert_fails(nyb_store_create(&store, f.path, t, 0, 1, err), NYB_E_ARG, "no tensor");
    t[1].name = "";
    assert_fails(nyb_store_create(&store, f.path, t, 2, 0, err), NYB_E_ARG, "empty");
    t[1].name = "b\xff";
    assert_fails(nyb_store_create(&store, f.path, t, 2, 0, err), NYB_E_ARG, "UTF-8");
    t[1].name = "__metadata__";
    assert_fails(nyb_store_create(&store, f.path, t, 2, 0, err), NYB_E_ARG, "reserved");
    assert_fails(nyb_store_create(&store, folder_file(&f, "no"), t, 1, 0, err), NYB_E_IO, "create");
    assert_fails(nyb_store_reopen(&store, f.path, t, 1, 0, err), NYB_E_IO, "open");

    assert_ok(nyb_store_create(&store, f.path, t, 1, 0, err));
    assert_fails(nyb_store_put(store, "a", "x", 1, err), NYB_E_SHAPE, "1 bytes where 2");
    assert_fails(nyb_store_put(store, "b", "x", 1, err), NYB_E_ARG, "'b'");
    assert_fails(nyb_store_mark(store, "b", err), NYB_E_ARG, "'b'");
    assert_false(nyb_store_was_put(store, "a"));
    nyb_store_close(store);
    t[0].name = "c";
    assert_fails(nyb_store_reopen(&store, f.path, t, 1, 0, err), NYB_E_FORMAT, "other tensors");
    t[0].shape[0] = 99;
    assert_fails(nyb_store_reopen(&store, f.path, t, 1, 0, err), NYB_E_FORMAT, "bytes where");
    folder_clear(&f);
}

// Room that is not there is found before the first tensor, and nothing is left behind.
static void missing_room_is_found_at_the_start(void **state)
{
    const size_t small[] = {1000}, large[] = {4, 1 << 20};
    struct rlimit old, limit;
    nyb_tensor t[2];
    nyb_store *store = NULL;
    folder f;
    (void) state;
    folder_make(&f);
    assert_ok(nyb_tensor_describe(&t[0], "a", NYB_U8, 1, small, err));
    assert_ok(nyb_tensor_describe(&t[1], "b", NYB_U8, 2, large, err));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 1 << 20;
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_fails(nyb_store_create(&store, f.path, t, 2, 2000, err), NYB_E_IO,
                 "cannot reserve 4194");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_null(store);
    assert_false(nyb_path_exists(folder_file(&f, "model-00001-of-00002.safetensors")));
    assert_false(nyb_path_exists(folder_file(&f, "model-00002-of-00002.safetensors")));
    folder_clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_headers_are_read),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(bad_lengths_are_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(folders_say_what_they_hold),
        cmocka_unit_test(indexes_are_checked),
        cmocka_unit_test(stores_are_read_back),
        cmocka_unit_test(stores_refuse_wrong_use),
        cmocka_unit_test(missing_room_is_found_at_the_start),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
