#define _GNU_SOURCE // sync_file_range
#include "formats/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/safetensors.h"

typedef struct item {
    const nyb_tensor *tensor;
    size_t shard;
    size_t offset; // of its bytes in the file
    atomic_bool put;
} item;

typedef struct shard {
    const char *name, *path;
    const char *header;
    size_t header_bytes;
    size_t file_bytes;
    size_t first, count; // in order[]
    int fd;              // -1: not open
    bool made;           // by this store
} shard;

struct nyb_store {
    nyb_arena arena;
    const char *folder;
    nyb_tensor *tensors; // in the caller's order
    size_t *order;       // shard by shard, in each file's order
    item *items;         // by name
    size_t count;
    shard *shards;
    size_t shard_count;
};

static nyb_status system_fault(const char *path, const char *what, int code, nyb_err *err)
{
    return nyb_fail(err, NYB_E_IO, "%s: cannot %s: %s", path, what, strerror(code));
}

// ---- The plan -------------------------------------------------------------------------------

static nyb_status copy_tensors(nyb_store *s, const nyb_tensor *tensors, size_t count, nyb_err *err)
{
    s->tensors = nyb_arena_alloc(&s->arena, count, sizeof(*s->tensors));
    s->order = nyb_arena_alloc(&s->arena, count, sizeof(*s->order));
    s->items = nyb_arena_alloc(&s->arena, count, sizeof(*s->items));
    if (!s->tensors || !s->order || !s->items)
        return nyb_no_memory(err, s->folder, count, sizeof(*s->tensors));

    for (size_t i = 0; i < count; i++) {
        const char *const name =
            nyb_arena_text(&s->arena, tensors[i].name, strlen(tensors[i].name));
        if (!name)
            return nyb_no_memory(err, s->folder, count, sizeof(*s->tensors));
        const nyb_status status = nyb_tensor_describe(&s->tensors[i], name, tensors[i].dtype,
                                                      tensors[i].rank, tensors[i].shape, err);
        if (status != NYB_OK)
            return status;
        s->order[i] = i;
    }
    s->count = count;
    return NYB_OK;
}

// Deals tensors to shards in the order given. Called once to count them and once to fill them.
static nyb_status deal(nyb_store *s, size_t limit, shard *shards, size_t *count, nyb_err *err)
{
    size_t used = 0, n = 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t sum = 0;
        if (!nyb_add_size(used, s->tensors[i].bytes, &sum))
            return nyb_fail(err, NYB_E_ARG, "the tensors' sizes overflow at '%s'",
                            s->tensors[i].name);
        if (n == 0 || (limit && used > 0 && sum > limit)) {
            if (shards)
                shards[n] = (shard){.first = i, .fd = -1};
            n++;
            sum = s->tensors[i].bytes;
        }
        if (shards)
            shards[n - 1].count++;
        used = sum;
    }
    *count = n;
    return NYB_OK;
}

static nyb_status plan_shard(nyb_store *s, size_t index, nyb_err *err)
{
    shard *const h = &s->shards[index];
    h->name = s->shard_count == 1 ? "model.safetensors"
                                  : nyb_arena_format(&s->arena, "model-%05zu-of-%05zu.safetensors",
                                                     index + 1, s->shard_count);
    h->path = h->name ? nyb_path_join(&s->arena, s->folder, h->name) : NULL;
    if (!h->path)
        return nyb_no_memory(err, s->folder, 1, strlen(s->folder));

    size_t *const order = s->order + h->first;
    nyb_status status = nyb_safetensors_sort(order, s->tensors, h->count, err);
    if (status == NYB_OK)
        status = nyb_safetensors_header(&h->header, &h->header_bytes, &s->arena, s->tensors, order,
                                        h->count, err);
    if (status != NYB_OK)
        return status;

    h->file_bytes = h->header_bytes;
    for (size_t i = 0; i < h->count; i++) {
        s->items[h->first + i].tensor = &s->tensors[order[i]];
        s->items[h->first + i].shard = index;
        s->items[h->first + i].offset = h->file_bytes;
        if (!nyb_add_size(h->file_bytes, s->tensors[order[i]].bytes, &h->file_bytes) ||
            h->file_bytes > INT64_MAX)
            return nyb_fail(err, NYB_E_ARG, "%s: its size overflows", h->path);
    }
    return NYB_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const item *) a)->tensor->name, ((const item *) b)->tensor->name);
}

static nyb_status index_names(nyb_store *s, nyb_err *err)
{
    if (s->count > 1)
        qsort(s->items, s->count, sizeof(*s->items), by_name);
    // A name used twice in one file was found with its header; across files it is found here.
    for (size_t i = 1; i < s->count; i++) {
        if (strcmp(s->items[i - 1].tensor->name, s->items[i].tensor->name) == 0)
            return nyb_fail(err, NYB_E_ARG, "the tensor name '%s' is used twice",
                            s->items[i].tensor->name);
    }
    return NYB_OK;
}

static nyb_status plan(nyb_store *s, const char *folder, const nyb_tensor *tensors, size_t count,
                       size_t shard_bytes, nyb_err *err)
{
    s->folder = nyb_arena_text(&s->arena, folder, strlen(folder));
    if (!s->folder)
        return nyb_no_memory(err, folder, strlen(folder), 1);
    if (count == 0)
        return nyb_fail(err, NYB_E_ARG, "%s: there is no tensor to write", folder);
    nyb_status status = copy_tensors(s, tensors, count, err);
    if (status == NYB_OK)
        status = deal(s, shard_bytes, NULL, &s->shard_count, err);
    if (status != NYB_OK)
        return status;

    s->shards = nyb_arena_alloc(&s->arena, s->shard_count, sizeof(*s->shards));
    if (!s->shards)
        return nyb_no_memory(err, folder, s->shard_count, sizeof(*s->shards));
    status = deal(s, shard_bytes, s->shards, &s->shard_count, err);
    for (size_t i = 0; i < s->shard_count && status == NYB_OK; i++)
        status = plan_shard(s, i, err);
    return status == NYB_OK ? index_names(s, err) : status;
}

// ---- Files ----------------------------------------------------------------------------------

static nyb_status write_at(int fd, const void *at, size_t bytes, size_t offset, const char *path,
                           nyb_err *err)
{
    const unsigned char *from = at;
    while (bytes > 0) {
        const ssize_t wrote = pwrite(fd, from, bytes, (off_t) offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return system_fault(path, "write it", errno, err);
        from += wrote;
        bytes -= (size_t) wrote;
        offset += (size_t) wrote;
    }
    return NYB_OK;
}

static nyb_status reserve(const shard *h, nyb_err *err)
{
    int code = EINTR;
    while (code == EINTR)
        code = posix_fallocate(h->fd, 0, (off_t) h->file_bytes);
    if (code == EOPNOTSUPP || code == EINVAL)
        code = ftruncate(h->fd, (off_t) h->file_bytes) == 0 ? 0 : errno;
    if (code != 0)
        return nyb_fail(err, NYB_E_IO, "%s: cannot reserve %zu bytes: %s", h->path, h->file_bytes,
                        strerror(code));
    return NYB_OK;
}

static nyb_status make_file(shard *h, nyb_err *err)
{
    h->fd = open(h->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (h->fd < 0 && errno == EEXIST)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists", h->path);
    if (h->fd < 0)
        return system_fault(h->path, "create it", errno, err);
    h->made = true;
    const nyb_status status = reserve(h, err);
    return status == NYB_OK ? write_at(h->fd, h->header, h->header_bytes, 0, h->path, err) : status;
}

static nyb_status same_header(const shard *h, nyb_arena *arena, nyb_err *err)
{
    char *const found = nyb_arena_alloc(arena, h->header_bytes, 1);
    if (!found)
        return nyb_no_memory(err, h->path, h->header_bytes, 1);
    size_t have = 0;
    while (have < h->header_bytes) {
        const ssize_t n = pread(h->fd, found + have, h->header_bytes - have, (off_t) have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return system_fault(h->path, "read it", n < 0 ? errno : EIO, err);
        have += (size_t) n;
    }
    if (memcmp(found, h->header, h->header_bytes) != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: was planned for other tensors, so this run cannot go on with it",
                        h->path);
    return NYB_OK;
}

static nyb_status take_file(shard *h, nyb_arena *arena, nyb_err *err)
{
    struct stat info;
    h->fd = open(h->path, O_RDWR | O_CLOEXEC);
    if (h->fd < 0 || fstat(h->fd, &info) != 0)
        return system_fault(h->path, "open it", errno, err);
    if (!S_ISREG(info.st_mode) || (size_t) info.st_size != h->file_bytes)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: has %lld bytes where this run plans %zu, so it cannot go on with it",
                        h->path, (long long) info.st_size, h->file_bytes);

    const nyb_arena_mark mark = nyb_arena_here(arena);
    const nyb_status status = same_header(h, arena, err);
    nyb_arena_rewind(arena, mark);
    return status;
}

static void remove_made(const nyb_store *s)
{
    for (size_t i = 0; i < s->shard_count && s->shards; i++) {
        if (s->shards[i].made)
            (void) unlink(s->shards[i].path);
    }
}

static json_t *make_index(const nyb_store *store)
{
    json_int_t total = 0;
    json_t *const weights = json_object();
    bool good = weights != NULL;

    for (size_t i = 0; i < store->count && good; i++) {
        const item *const it = &store->items[i];
        good = json_object_set_new(weights, it->tensor->name,
                                   json_string(store->shards[it->shard].name)) == 0;
        total += (json_int_t) it->tensor->bytes;
    }
    if (good)
        return json_pack("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", weights);
    json_decref(weights);
    return NULL;
}

static nyb_status write_index(const nyb_store *store, nyb_err *err)
{
    nyb_arena arena = {0};
    json_t *const index = make_index(store);
    const char *const path = nyb_path_join(&arena, store->folder, "model.safetensors.index.json");
    const nyb_status status = index && path
                                  ? nyb_json_save(index, path, err)
                                  : nyb_no_memory(err, store->folder, store->count, sizeof(item));
    json_decref(index);
    nyb_arena_clear(&arena);
    return status;
}

// A store whose files are planned and none of which is there yet.
static nyb_status plan_new(nyb_store **out, const char *folder, const nyb_tensor *tensors,
                           size_t count, size_t shard_bytes, nyb_err *err)
{
    *out = nyb_alloc(1, sizeof(**out));
    if (!*out)
        return nyb_no_memory(err, folder, 1, sizeof(**out));
    const nyb_status status = plan(*out, folder, tensors, count, shard_bytes, err);
    if (status != NYB_OK) {
        nyb_store_close(*out);
        *out = NULL;
    }
    return status;
}

nyb_status nyb_store_create(nyb_store **out, const char *folder, const nyb_tensor *tensors,
                            size_t count, size_t shard_bytes, nyb_err *err)
{
    nyb_store *s = NULL;
    *out = NULL;
    nyb_status status = plan_new(&s, folder, tensors, count, shard_bytes, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < s->shard_count && status == NYB_OK; i++)
        status = make_file(&s->shards[i], err);
    if (status == NYB_OK && s->shard_count > 1)
        status = write_index(s, err);
    if (status == NYB_OK) {
        *out = s;
        return NYB_OK;
    }
    remove_made(s);
    nyb_store_close(s);
    return status;
}

nyb_status nyb_store_reopen(nyb_store **out, const char *folder, const nyb_tensor *tensors,
                            size_t count, size_t shard_bytes, nyb_err *err)
{
    nyb_store *s = NULL;
    *out = NULL;
    nyb_status status = plan_new(&s, folder, tensors, count, shard_bytes, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < s->shard_count && status == NYB_OK; i++)
        status = take_file(&s->shards[i], &s->arena, err);
    if (status == NYB_OK)
        *out = s;
    else
        nyb_store_close(s);
    return status;
}

// ---- Tensors --------------------------------------------------------------------------------

static item *find(const nyb_store *s, const char *name)
{
    const nyb_tensor wanted = {.name = name};
    const item key = {.tensor = &wanted};
    return bsearch(&key, s->items, s->count, sizeof(*s->items), by_name);
}

static nyb_status unknown(const nyb_store *s, const char *name, nyb_err *err)
{
    return nyb_fail(err, NYB_E_ARG, "%s: no tensor '%s' was planned", s->folder, name);
}

static nyb_status put(nyb_store *store, const char *name, const void *at, size_t bytes, bool mapped,
                      nyb_err *err)
{
    item *const it = find(store, name);
    if (!it)
        return unknown(store, name, err);
    if (bytes != it->tensor->bytes)
        return nyb_fail(err, NYB_E_SHAPE, "tensor '%s' has %zu bytes where %zu were planned", name,
                        bytes, it->tensor->bytes);
    const shard *const h = &store->shards[it->shard];
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < bytes; i += NYB_MAP_PIECE) {
        const size_t some = bytes - i < NYB_MAP_PIECE ? bytes - i : NYB_MAP_PIECE;
        const unsigned char *const piece = (const unsigned char *) at + i;
        status = write_at(h->fd, piece, some, it->offset + i, h->path, err);
        if (mapped)
            nyb_map_release(piece, some);
    }
    // The disk may begin now; a sync waits for less then. Where it cannot be told so, nothing is lost.
    if (status == NYB_OK)
        (void) sync_file_range(h->fd, (off_t) it->offset, (off_t) bytes, SYNC_FILE_RANGE_WRITE);
    if (status == NYB_OK)
        atomic_store(&it->put, true);
    return status;
}

nyb_status nyb_store_put(nyb_store *store, const char *name, const void *at, size_t bytes,
                         nyb_err *err)
{
    return put(store, name, at, bytes, false, err);
}

nyb_status nyb_store_put_mapped(nyb_store *store, const char *name, const void *at, size_t bytes,
                                nyb_err *err)
{
    return put(store, name, at, bytes, true, err);
}

nyb_status nyb_store_mark(nyb_store *store, const char *name, nyb_err *err)
{
    item *const it = find(store, name);
    if (!it)
        return unknown(store, name, err);
    atomic_store(&it->put, true);
    return NYB_OK;
}

bool nyb_store_has(const nyb_store *store, const char *name)
{
    return find(store, name) != NULL;
}

bool nyb_store_was_put(const nyb_store *store, const char *name)
{
    item *const it = find(store, name);
    return it && atomic_load(&it->put);
}

// ---- The end --------------------------------------------------------------------------------

nyb_status nyb_store_sync(nyb_store *store, nyb_err *err)
{
    for (size_t i = 0; i < store->shard_count; i++) {
        if (fsync(store->shards[i].fd) != 0)
            return system_fault(store->shards[i].path, "sync it to disk", errno, err);
    }
    return NYB_OK;
}

static nyb_status check_put(nyb_store *store, nyb_err *err)
{
    size_t missing = 0;
    const char *first = NULL;
    for (size_t i = 0; i < store->count; i++) {
        if (atomic_load(&store->items[i].put))
            continue;
        first = missing++ ? first : store->items[i].tensor->name;
    }
    if (missing)
        return nyb_fail(err, NYB_E_ARG, "%s: %zu tensors were never written, '%s' among them",
                        store->folder, missing, first);
    return NYB_OK;
}

nyb_status nyb_store_finish(nyb_store *store, nyb_err *err)
{
    nyb_status status = check_put(store, err);
    if (status == NYB_OK)
        status = nyb_store_sync(store, err);
    return status == NYB_OK ? nyb_folder_sync(store->folder, err) : status;
}

size_t nyb_store_files(const nyb_store *store)
{
    return store->shard_count;
}

const char *nyb_store_file(const nyb_store *store, size_t index)
{
    return store->shards[index].path;
}

size_t nyb_store_total_bytes(const nyb_store *store)
{
    size_t total = 0;
    for (size_t i = 0; i < store->shard_count; i++)
        total += store->shards[i].file_bytes;
    return total;
}

void nyb_store_close(nyb_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->shard_count && store->shards; i++) {
        if (store->shards[i].fd >= 0)
            (void) close(store->shards[i].fd);
    }
    nyb_arena_clear(&store->arena);
    nyb_free(store);
}
