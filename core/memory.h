// memory.h - the only place that asks the system for memory.
#ifndef NYB_CORE_MEMORY_H_
#define NYB_CORE_MEMORY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { NYB_ALIGN = 64 }; // of every block handed out: a cache line, an AVX-512 register

// a * b into *out. False, with *out untouched, when the product does not fit.
static inline bool nyb_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool nyb_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

// count * size bytes, zeroed, aligned to NYB_ALIGN; NULL when there is no room or the product
// overflows. A zero product gives a valid block. Freed by nyb_free().
void *nyb_alloc(size_t count, size_t size);

// As nyb_alloc(), but the content is undefined: for buffers that are written before they are
// read, so that pages are touched by the thread that uses them.
void *nyb_alloc_raw(size_t count, size_t size);

// A copy of the string, NULL when there is no room.
char *nyb_strdup(const char *text);

// NULL is fine.
void nyb_free(void *block);

// The error for a failed allocation of `count` items of `size` bytes for `what`.
nyb_status nyb_no_memory(nyb_err *err, const char *what, size_t count, size_t size);

#endif // NYB_CORE_MEMORY_H_
