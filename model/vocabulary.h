// vocabulary.h - tokens by text and by id.
#ifndef NYB_MODEL_VOCABULARY_H_
#define NYB_MODEL_VOCABULARY_H_

#include "core/arena.h"

// Ids a file may use. A larger one is a damaged file rather than a vocabulary, and would make
// tables of that many entries.
enum { NYB_TOKEN_ID_LIMIT = 1 << 22, NYB_TOKEN_LENGTH_LIMIT = 1 << 20 };

typedef struct nyb_token {
    const char *text; // NUL-terminated, may hold NULs; NULL: no such token
    uint32_t length;
    uint32_t id;
} nyb_token;

// Memory is the arena's that it was made with. Several texts may share an id (the first one
// added is then the id's text); one text has one id.
typedef struct nyb_vocabulary {
    nyb_token *tokens; // [count] in the order they were added
    size_t count, room;
    uint32_t *slots; // [mask + 1] open addressing: index into tokens + 1, 0 is free
    size_t mask;
    uint32_t *by_id; // [size] index into tokens + 1, 0: unused id
    size_t size;     // one more than the largest id
    size_t by_id_room;
    char *pool; // where the next texts go
    size_t pool_left;
} nyb_vocabulary;

// Room for `room` tokens to start with.
NYB_NODISCARD nyb_status nyb_vocabulary_init(nyb_vocabulary *v, nyb_arena *arena, size_t room,
                                             nyb_err *err);

// Adds a copy of the text. Adding a text twice is NYB_E_FORMAT, so are an id or a length above
// the limits; `name` is the file for errors.
NYB_NODISCARD nyb_status nyb_vocabulary_add(nyb_vocabulary *v, nyb_arena *arena, nyb_token token,
                                            const char *name, nyb_err *err);

// The id, or -1.
int64_t nyb_vocabulary_find(const nyb_vocabulary *v, const char *text, size_t length);

// The token with this id, or NULL.
const nyb_token *nyb_vocabulary_at(const nyb_vocabulary *v, uint32_t id);

// A hash of bytes, for tables in memory only.
uint64_t nyb_hash_bytes(const char *at, size_t length);

#endif // NYB_MODEL_VOCABULARY_H_
