// arena.h - memory that is handed back all at once: an opened file's directory, a
// configuration, a layer's scratch. Grows by blocks; nothing in it moves.
#ifndef NYB_CORE_ARENA_H_
#define NYB_CORE_ARENA_H_

#include "core/memory.h"
#include "nybble/tensor.h"

typedef struct nyb_arena_block nyb_arena_block;

// Zero-initialised it is a valid, empty arena.
typedef struct nyb_arena {
    nyb_arena_block *last;
} nyb_arena;

// A place to come back to. Only valid until an earlier mark is rewound to.
typedef struct nyb_arena_mark {
    nyb_arena_block *block;
    size_t used;
} nyb_arena_mark;

// count * size bytes aligned to NYB_ALIGN, zeroed. NULL when there is no room.
void *nyb_arena_alloc(nyb_arena *arena, size_t count, size_t size);

// The first `length` bytes of text and a NUL. NULL when there is no room.
char *nyb_arena_text(nyb_arena *arena, const char *text, size_t length);

// printf into the arena. NULL when there is no room.
__attribute__((format(printf, 2, 3))) char *nyb_arena_format(nyb_arena *arena, const char *format,
                                                             ...);

// A zeroed matrix; its `at` is NULL when there is no room.
nyb_mat nyb_arena_mat(nyb_arena *arena, size_t rows, size_t cols);

// Makes room for `bytes` at once, so that allocations up to that sum cannot fail (each one
// takes its size rounded up to NYB_ALIGN). False when there is no room.
bool nyb_arena_reserve(nyb_arena *arena, size_t bytes);

nyb_arena_mark nyb_arena_here(const nyb_arena *arena);

// Gives back everything allocated since `mark`.
void nyb_arena_rewind(nyb_arena *arena, nyb_arena_mark mark);

// Gives everything back; the arena is empty and usable.
void nyb_arena_clear(nyb_arena *arena);

#endif // NYB_CORE_ARENA_H_
