#include "calib/source_files.h"

#include <string.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/threads.h"

typedef struct hashing {
    const nyb_checkpoint *source;
    char (*texts)[NYB_HASH_TEXT];
} hashing;

static void hash_file(void *arg, size_t index, unsigned worker)
{
    const hashing *const h = arg;
    size_t bytes = 0;
    const void *const at = nyb_checkpoint_file_bytes(h->source, index, &bytes);
    (void) worker;
    nyb_hash hash;
    nyb_hash_init(&hash);
    for (size_t i = 0; i < bytes; i += NYB_MAP_PIECE) {
        const size_t some = bytes - i < NYB_MAP_PIECE ? bytes - i : NYB_MAP_PIECE;
        nyb_hash_add(&hash, (const unsigned char *) at + i, some);
        nyb_map_release((const unsigned char *) at + i, some);
    }
    nyb_hash_text(&hash, h->texts[index]);
}

const char *nyb_base_name(const char *path)
{
    const char *const slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

json_t *nyb_source_files(const nyb_context *ctx, const nyb_checkpoint *source)
{
    const size_t count = nyb_checkpoint_files(source);
    nyb_arena arena = {0};
    hashing h = {.source = source, .texts = nyb_arena_alloc(&arena, count, sizeof(*h.texts))};
    json_t *const files = h.texts ? json_array() : NULL;
    if (!files) {
        nyb_arena_clear(&arena);
        return NULL;
    }
    nyb_parallel(ctx, count, hash_file, &h);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        (void) nyb_checkpoint_file_bytes(source, i, &bytes);
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "file",
                                               nyb_base_name(nyb_checkpoint_file(source, i)),
                                               "bytes", (json_int_t) bytes, "sha256", h.texts[i]));
    }
    nyb_arena_clear(&arena);
    return files;
}

size_t nyb_source_bytes(const nyb_checkpoint *source)
{
    size_t sum = 0;
    for (size_t i = 0; i < nyb_checkpoint_files(source); i++) {
        size_t bytes = 0;
        (void) nyb_checkpoint_file_bytes(source, i, &bytes);
        sum += bytes;
    }
    return sum;
}
