#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

void *nyb_alloc_raw(size_t count, size_t size)
{
    size_t bytes = 0;
    if (!nyb_mul_size(count, size, &bytes) || !nyb_add_size(bytes, NYB_ALIGN, &bytes))
        return NULL;
    return aligned_alloc(NYB_ALIGN, bytes - bytes % NYB_ALIGN);
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
