#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "formats/npy.h"
#include "formats/safetensors.h"

enum { PREFIX_BYTES = 10, HEADER_ALIGN = 64 };

static const char *const descrs[NYB_DTYPE_COUNT] = {
    [NYB_F32] = "<f4", [NYB_F16] = "<f2", [NYB_F64] = "<f8", [NYB_I8] = "|i1",
    [NYB_U8] = "|u1",  [NYB_I16] = "<i2", [NYB_U16] = "<u2", [NYB_I32] = "<i4",
    [NYB_U32] = "<u4", [NYB_I64] = "<i8", [NYB_U64] = "<u8", [NYB_BOOL] = "|b1",
};

struct nyb_npy_writer {
    nyb_arena arena;
    const char *path, *part;
    size_t left; // bytes that are still to come
    int fd;      // -1 when closed
    bool made;   // part is there
};

static nyb_status system_fault(const char *path, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

// The whole header of version 1 in the arena: rank <= 8, so it always fits its 16-bit length.
static char *make_header(nyb_arena *arena, size_t *length, const nyb_tensor *shape)
{
    const char *axes = nyb_arena_text(arena, "", 0);
    for (unsigned i = 0; i < shape->rank && axes; i++) {
        const char *const end = i + 1 < shape->rank ? ", " : shape->rank == 1 ? "," : "";
        axes = nyb_arena_format(arena, "%s%zu%s", axes, shape->shape[i], end);
    }
    const char *const text =
        axes ? nyb_arena_format(arena, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                                descrs[shape->dtype], axes)
             : NULL;
    if (!text)
        return NULL;

    const size_t used = PREFIX_BYTES + strlen(text) + 1;
    const size_t total = (used + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    char *const at = nyb_arena_alloc(arena, total, 1);
    if (!at)
        return NULL;
    memcpy(at, "\x93NUMPY\x01\x00", 8);
    at[8] = (char) ((total - PREFIX_BYTES) & 0xff);
    at[9] = (char) ((total - PREFIX_BYTES) >> 8);
    memset(at + PREFIX_BYTES, ' ', total - PREFIX_BYTES);
    memcpy(at + PREFIX_BYTES, text, strlen(text));
    at[total - 1] = '\n';
    *length = total;
    return at;
}

static nyb_status write_bytes(nyb_npy_writer *w, const void *at, size_t bytes, nyb_err *err)
{
    const unsigned char *from = at;
    while (bytes > 0) {
        const ssize_t wrote = write(w->fd, from, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return system_fault(w->part, "write it", err);
        from += wrote;
        bytes -= (size_t) wrote;
    }
    return NYB_OK;
}

static nyb_status start(nyb_npy_writer *w, const char *path, const nyb_tensor *shape, nyb_err *err)
{
    size_t length = 0;
    if (shape->rank > NYB_MAX_RANK ||
        !nyb_tensor_size(shape->dtype, shape->rank, shape->shape, &w->left))
        return nyb_fail(err, NYB_E_ARG, "%s: the array's shape is too large", path);
    if (!descrs[shape->dtype])
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: NumPy has no element type %s", path,
                        nyb_dtype_name(shape->dtype));
    w->path = nyb_arena_text(&w->arena, path, strlen(path));
    w->part = nyb_arena_format(&w->arena, "%s.part", path);
    const char *const header = make_header(&w->arena, &length, shape);
    if (!w->path || !w->part || !header)
        return nyb_no_memory(err, path, strlen(path), 2);

    w->fd = open(w->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0)
        return system_fault(w->part, "create it", err);
    w->made = true;
    return write_bytes(w, header, length, err);
}

nyb_status nyb_npy_create(nyb_npy_writer **out, const char *path, const nyb_tensor *shape,
                          nyb_err *err)
{
    *out = NULL;
    nyb_npy_writer *const w = nyb_alloc(1, sizeof(*w));
    if (!w)
        return nyb_no_memory(err, path, 1, sizeof(*w));
    w->fd = -1;
    const nyb_status status = start(w, path, shape, err);
    if (status == NYB_OK)
        *out = w;
    else
        nyb_npy_discard(w);
    return status;
}

nyb_status nyb_npy_append(nyb_npy_writer *writer, const void *at, size_t bytes, nyb_err *err)
{
    if (bytes > writer->left)
        return nyb_fail(err, NYB_E_SHAPE, "%s: %zu bytes more than its shape holds", writer->path,
                        bytes - writer->left);
    const nyb_status status = write_bytes(writer, at, bytes, err);
    if (status == NYB_OK)
        writer->left -= bytes;
    return status;
}

nyb_status nyb_npy_finish(nyb_npy_writer *writer, nyb_err *err)
{
    if (writer->left > 0)
        return nyb_fail(err, NYB_E_SHAPE, "%s: %zu bytes are missing", writer->path, writer->left);
    if (fsync(writer->fd) != 0)
        return system_fault(writer->part, "sync it to disk", err);
    const int failed = close(writer->fd);
    writer->fd = -1;
    if (failed)
        return system_fault(writer->part, "close it", err);
    const nyb_status status = nyb_rename(writer->part, writer->path, err);
    if (status == NYB_OK)
        writer->made = false;
    return status;
}

void nyb_npy_discard(nyb_npy_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        (void) close(writer->fd);
    if (writer->made)
        (void) unlink(writer->part);
    nyb_arena_clear(&writer->arena);
    nyb_free(writer);
}

nyb_status nyb_npy_save(const char *path, const nyb_tensor *tensor, nyb_err *err)
{
    nyb_npy_writer *w = NULL;
    nyb_status status = nyb_npy_create(&w, path, tensor, err);
    if (status != NYB_OK)
        return status;
    status = nyb_npy_append(w, tensor->at, tensor->bytes, err);
    if (status == NYB_OK)
        status = nyb_npy_finish(w, err);
    nyb_npy_discard(w);
    return status;
}
