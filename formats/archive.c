#include "formats/archive.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "core/file.h"

// What deflate can make of a byte, and a little for members of almost nothing.
enum { EXPANSION = 1100, SLACK = 64 << 10, PIECE = 1 << 20 };

struct nyb_archive {
    nyb_arena arena;
    const char *path;
    zip_t *zip;
    const char **names;
    size_t count;
};

static nyb_status open_zip(zip_t **out, const char *path, int flags, nyb_err *err)
{
    int code = 0;
    *out = zip_open(path, flags, &code);
    if (*out)
        return NYB_OK;
    zip_error_t fault;
    zip_error_init_with_code(&fault, code);
    const nyb_status status = code == ZIP_ER_OPEN || code == ZIP_ER_READ || code == ZIP_ER_NOENT
                                  ? NYB_E_IO
                                  : NYB_E_FORMAT;
    (void) nyb_fail(err, status, "%s: not a readable archive: %s", path,
                    zip_error_strerror(&fault));
    zip_error_fini(&fault);
    return status;
}

static bool leads_out(const char *name)
{
    return *name == '\0' || *name == '/' || strchr(name, '\\') || strcmp(name, "..") == 0 ||
           strncmp(name, "../", 3) == 0 || strstr(name, "/../");
}

static nyb_status list_names(nyb_archive *a, nyb_err *err)
{
    a->count = (size_t) zip_get_num_entries(a->zip, 0);
    a->names = nyb_arena_alloc(&a->arena, a->count, sizeof(*a->names));
    if (!a->names)
        return nyb_no_memory(err, a->path, a->count, sizeof(*a->names));
    for (size_t i = 0; i < a->count; i++) {
        const char *const name = zip_get_name(a->zip, i, ZIP_FL_ENC_GUESS);
        if (!name || leads_out(name))
            return nyb_fail(err, NYB_E_FORMAT, "%s: a member's name, '%.100s', is no file's",
                            a->path, name ? name : "");
        a->names[i] = name;
        if (zip_name_locate(a->zip, name, 0) != (zip_int64_t) i)
            return nyb_fail(err, NYB_E_FORMAT, "%s: it has '%.100s' twice", a->path, name);
    }
    return NYB_OK;
}

nyb_status nyb_archive_open(nyb_archive **out, const char *path, nyb_err *err)
{
    *out = NULL;
    nyb_archive *const a = nyb_alloc(1, sizeof(*a));
    if (!a)
        return nyb_no_memory(err, path, 1, sizeof(*a));
    a->path = nyb_arena_text(&a->arena, path, strlen(path));
    nyb_status status = a->path ? open_zip(&a->zip, path, ZIP_RDONLY, err)
                                : nyb_no_memory(err, path, strlen(path), 1);
    if (status == NYB_OK)
        status = list_names(a, err);
    if (status == NYB_OK)
        *out = a;
    else
        nyb_archive_close(a);
    return status;
}

void nyb_archive_close(nyb_archive *a)
{
    if (!a)
        return;
    if (a->zip)
        zip_discard(a->zip);
    nyb_arena_clear(&a->arena);
    nyb_free(a);
}

size_t nyb_archive_count(const nyb_archive *a)
{
    return a->count;
}

const char *nyb_archive_name(const nyb_archive *a, size_t index)
{
    return a->names[index];
}

bool nyb_archive_has(const nyb_archive *a, const char *name)
{
    return zip_name_locate(a->zip, name, 0) >= 0;
}

// ---- Members --------------------------------------------------------------------------------

typedef struct source {
    const nyb_archive *archive;
    const char *name;
    zip_file_t *file;
    size_t bytes; // it has to give
    nyb_err *err;
} source;

static nyb_status damaged(const source *s, const char *why)
{
    return nyb_fail(s->err, NYB_E_FORMAT, "%s: its member '%s' is damaged: %s", s->archive->path,
                    s->name, why);
}

static nyb_status open_member(source *s)
{
    zip_stat_t info;
    const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat(s->archive->zip, s->name, 0, &info) != 0 || (info.valid & needed) != needed)
        return nyb_fail(s->err, NYB_E_FORMAT, "%s: it has no '%s'", s->archive->path, s->name);
    if (info.encryption_method != ZIP_EM_NONE)
        return nyb_fail(s->err, NYB_E_UNSUPPORTED, "%s: its member '%s' is encrypted",
                        s->archive->path, s->name);
    if (info.size > SLACK && (info.size - SLACK) / EXPANSION > info.comp_size)
        return nyb_fail(s->err, NYB_E_FORMAT,
                        "%s: its member '%s' claims %llu bytes, stored in %llu", s->archive->path,
                        s->name, (unsigned long long) info.size,
                        (unsigned long long) info.comp_size);
    s->bytes = (size_t) info.size;
    s->file = zip_fopen(s->archive->zip, s->name, 0);
    return s->file ? NYB_OK : damaged(s, zip_strerror(s->archive->zip));
}

// Exactly `length` bytes.
static nyb_status read_piece(const source *s, char *to, size_t length)
{
    while (length > 0) {
        const zip_int64_t got = zip_fread(s->file, to, length);
        if (got <= 0)
            return damaged(s, got < 0 ? zip_file_strerror(s->file) : "it ends too early");
        to += got;
        length -= (size_t) got;
    }
    return NYB_OK;
}

// Checks the sum behind the last byte, which libzip does when it sees the end.
static nyb_status read_end(const source *s)
{
    char more;
    const zip_int64_t got = zip_fread(s->file, &more, 1);
    return got == 0 ? NYB_OK : damaged(s, got < 0 ? zip_file_strerror(s->file) : "it does not end");
}

nyb_status nyb_archive_text(nyb_archive *a, const char *name, size_t limit, nyb_arena *arena,
                            char **text, size_t *length, nyb_err *err)
{
    source s = {.archive = a, .name = name, .err = err};
    nyb_status status = open_member(&s);
    if (status != NYB_OK)
        return status;
    *text = s.bytes <= limit ? nyb_arena_alloc(arena, s.bytes + 1, 1) : NULL;
    *length = s.bytes;
    if (s.bytes > limit)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: its member '%s' has %zu bytes, at most %zu",
                          a->path, name, s.bytes, limit);
    else
        status = *text ? read_piece(&s, *text, s.bytes) : nyb_no_memory(err, name, s.bytes, 1);
    if (status == NYB_OK)
        status = read_end(&s);
    (void) zip_fclose(s.file);
    return status;
}

static nyb_status write_piece(int file, const char *from, size_t length, nyb_err *err)
{
    while (length > 0) {
        const ssize_t wrote = write(file, from, length);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return nyb_fail(err, NYB_E_IO, "cannot write what an archive holds: %s",
                            strerror(errno));
        from += wrote;
        length -= (size_t) wrote;
    }
    return NYB_OK;
}

static nyb_status copy_member(const source *s, char *piece, int file)
{
    nyb_status status = NYB_OK;
    for (size_t done = 0; status == NYB_OK && done < s->bytes;) {
        const size_t n = s->bytes - done < PIECE ? s->bytes - done : PIECE;
        status = read_piece(s, piece, n);
        if (status == NYB_OK)
            status = write_piece(file, piece, n, s->err);
        done += n;
    }
    return status == NYB_OK ? read_end(s) : status;
}

nyb_status nyb_archive_extract(nyb_archive *a, const char *name, int file, nyb_err *err)
{
    source s = {.archive = a, .name = name, .err = err};
    nyb_status status = open_member(&s);
    if (status != NYB_OK)
        return status;
    char *const piece = nyb_alloc_raw(PIECE, 1);
    status = piece ? copy_member(&s, piece, file) : nyb_no_memory(err, name, PIECE, 1);
    nyb_free(piece);
    (void) zip_fclose(s.file);
    return status;
}

// ---- Writing --------------------------------------------------------------------------------

static zip_source_t *source_of(zip_t *zip, const nyb_archive_member *m)
{
    if (m->bytes)
        return zip_source_buffer(zip, m->bytes, m->length, 0);
    if (m->file)
        return zip_source_file(zip, m->file, 0, -1);
    const zip_int64_t index = zip_name_locate(m->from->zip, m->name, 0);
    return index < 0 ? NULL : zip_source_zip(zip, m->from->zip, (zip_uint64_t) index, 0, 0, -1);
}

static bool add_member(zip_t *zip, const nyb_archive_member *m)
{
    zip_source_t *const from = source_of(zip, m);
    const zip_int64_t index = from ? zip_file_add(zip, m->name, from, ZIP_FL_ENC_UTF_8) : -1;
    if (index < 0) {
        if (from)
            zip_source_free(from);
        return false;
    }
    // The first moment that the format knows, and readable files on systems with permissions.
    const zip_uint64_t at = (zip_uint64_t) index;
    return zip_set_file_compression(zip, at, ZIP_CM_STORE, 0) == 0 &&
           zip_file_set_dostime(zip, at, 0, 1 << 5 | 1, 0) == 0 &&
           zip_file_set_external_attributes(zip, at, 0, ZIP_OPSYS_UNIX, 0644u << 16) == 0;
}

nyb_status nyb_archive_write(const char *path, const nyb_archive_member *members, size_t count,
                             nyb_err *err)
{
    zip_t *zip = NULL;
    nyb_status status = open_zip(&zip, path, ZIP_CREATE | ZIP_TRUNCATE, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; status == NYB_OK && i < count; i++) {
        if (!add_member(zip, &members[i]))
            status = nyb_fail(err, NYB_E_IO, "%s: cannot add '%s': %s", path, members[i].name,
                              zip_strerror(zip));
    }
    if (status == NYB_OK && zip_close(zip) == 0)
        return nyb_file_sync(path, err);
    if (status == NYB_OK)
        status = nyb_fail(err, NYB_E_IO, "%s: cannot write it: %s", path, zip_strerror(zip));
    zip_discard(zip);
    return status;
}
