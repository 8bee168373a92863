// folder.h - a folder of its own for each test, and files in it.
#ifndef NYB_TESTS_FORMATS_FOLDER_H_
#define NYB_TESTS_FORMATS_FOLDER_H_

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "tests/test.h"

typedef struct folder {
    nyb_arena arena;
    char *path;
} folder;

static inline void folder_make(folder *f)
{
    const char *const base = getenv("TMPDIR");
    *f = (folder){0};
    f->path = nyb_arena_format(&f->arena, "%s/nybble-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(f->path));
}

static inline const char *folder_file(folder *f, const char *name)
{
    return nyb_path_join(&f->arena, f->path, name);
}

static inline const char *folder_write(folder *f, const char *name, const void *bytes,
                                       size_t length)
{
    const char *const path = folder_file(f, name);
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline void folder_clear(folder *f)
{
    nyb_err err = {0};
    if (nyb_folder_remove(f->path, &err) != NYB_OK)
        fail_msg("%s", err.text);
    nyb_arena_clear(&f->arena);
}

// Succeeds, or prints the error.
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        nyb_err err_ = {0};                                                                        \
        nyb_err *const err = &err_;                                                                \
        if ((call) != NYB_OK)                                                                      \
            fail_msg("%s: %s", #call, err->text);                                                  \
    } while (0)

// Fails with this status and a text that holds `part`.
#define assert_fails(call, wanted, part)                                                           \
    do {                                                                                           \
        nyb_err err_ = {0};                                                                        \
        nyb_err *const err = &err_;                                                                \
        const nyb_status got_ = (call);                                                            \
        if (got_ != (wanted) || !strstr(err->text, part))                                          \
            fail_msg("%s: %s '%s', want %s '%s'", #call, nyb_status_name(got_), err->text,         \
                     nyb_status_name(wanted), part);                                               \
    } while (0)

#endif // NYB_TESTS_FORMATS_FOLDER_H_
