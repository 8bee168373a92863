#include "core/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LARGE_PAGE = 1 << 21 };

// Large blocks live for a stage and are filled from end to end: page by page their first touch would
// cost more than clearing them does. What is behind the last whole large page stays in small ones,
// so that no block takes more than was asked for.
static void *alloc_large(size_t bytes)
{
    void *block = NULL;
    if (posix_memalign(&block, LARGE_PAGE, bytes) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE // advice alone: without large pages there are small ones
    (void) madvise(block, bytes - bytes % LARGE_PAGE, MADV_HUGEPAGE);
#endif
    return block;
}

void *nyb_alloc_raw(size_t count, size_t size)
{
    size_t bytes = 0;
    if (!nyb_mul_size(count, size, &bytes) || !nyb_add_size(bytes, NYB_ALIGN, &bytes))
        return NULL;
    bytes -= bytes % NYB_ALIGN;
    return bytes < LARGE_PAGE ? aligned_alloc(NYB_ALIGN, bytes) : alloc_large(bytes);
}

void *nyb_alloc(size_t count, size_t size)
{
    void *const block = nyb_alloc_raw(count, size);
    if (block)
        memset(block, 0, count * size);
    return block;
}

char *nyb_strdup(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *const copy = nyb_alloc_raw(bytes, 1);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

void nyb_free(void *block)
{
    free(block);
}

nyb_status nyb_no_memory(nyb_err *err, const char *what, size_t count, size_t size)
{
    return nyb_fail(err, NYB_E_NOMEM, "no memory for %s: %zu x %zu bytes", what, count, size);
}
