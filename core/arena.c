#include "core/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct nyb_arena_block {
    nyb_arena_block *before;
    size_t used, size; // of the bytes that follow
};

enum {
    FIRST_BLOCK_BYTES = 16 << 10,
    HEAD_BYTES = (sizeof(struct nyb_arena_block) + NYB_ALIGN - 1) / NYB_ALIGN * NYB_ALIGN,
};

static bool add_block(nyb_arena *arena, size_t need)
{
    // Each block doubles the one before, so that an arena of n bytes has log n blocks.
    size_t size = arena->last ? arena->last->size * 2 : FIRST_BLOCK_BYTES;
    if (size < need)
        size = need;
    size_t total = 0;
    if (!nyb_add_size(size, HEAD_BYTES, &total))
        return false;
    nyb_arena_block *const block = nyb_alloc_raw(total, 1);
    if (!block)
        return false;
    *block = (nyb_arena_block){.before = arena->last, .size = size};
    arena->last = block;
    return true;
}

bool nyb_arena_reserve(nyb_arena *arena, size_t bytes)
{
    if (arena->last && arena->last->size - arena->last->used >= bytes)
        return true;
    return add_block(arena, bytes);
}

void *nyb_arena_alloc(nyb_arena *arena, size_t count, size_t size)
{
    size_t bytes = 0;
    if (!nyb_mul_size(count, size, &bytes) || !nyb_add_size(bytes, NYB_ALIGN - 1, &bytes))
        return NULL;
    bytes -= bytes % NYB_ALIGN;
    if (!nyb_arena_reserve(arena, bytes))
        return NULL;

    nyb_arena_block *const block = arena->last;
    void *const at = (unsigned char *) block + HEAD_BYTES + block->used;
    block->used += bytes;
    return memset(at, 0, bytes);
}

char *nyb_arena_text(nyb_arena *arena, const char *text, size_t length)
{
    char *const copy = length < SIZE_MAX ? nyb_arena_alloc(arena, length + 1, 1) : NULL;
    if (copy && length) // an empty text may be NULL
        memcpy(copy, text, length);
    return copy;
}

char *nyb_arena_format(nyb_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    char *const text = length >= 0 ? nyb_arena_alloc(arena, (size_t) length + 1, 1) : NULL;
    if (text)
        (void) vsnprintf(text, (size_t) length + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}

nyb_mat nyb_arena_mat(nyb_arena *arena, size_t rows, size_t cols)
{
    size_t count = 0;
    float *const at =
        nyb_mul_size(rows, cols, &count) ? nyb_arena_alloc(arena, count, sizeof(float)) : NULL;
    return nyb_mat_of(at, rows, cols);
}

nyb_arena_mark nyb_arena_here(const nyb_arena *arena)
{
    return (nyb_arena_mark){.block = arena->last, .used = arena->last ? arena->last->used : 0};
}

void nyb_arena_rewind(nyb_arena *arena, nyb_arena_mark mark)
{
    while (arena->last != mark.block) {
        nyb_arena_block *const block = arena->last;
        arena->last = block->before;
        nyb_free(block);
    }
    if (arena->last)
        arena->last->used = mark.used;
}

void nyb_arena_clear(nyb_arena *arena)
{
    nyb_arena_rewind(arena, (nyb_arena_mark){0});
}
