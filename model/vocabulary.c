#include "model/vocabulary.h"

#include <string.h>

uint64_t nyb_hash_bytes(const char *at, size_t length)
{
    const uint64_t odd = 0x9e3779b97f4a7c15u;
    uint64_t h = length * odd, part = 0;
    while (length >= sizeof(part)) {
        memcpy(&part, at, sizeof(part));
        h = (h ^ part) * odd;
        h ^= h >> 32;
        at += sizeof(part);
        length -= sizeof(part);
    }
    part = 0;
    memcpy(&part, at, length);
    h = (h ^ part) * odd;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static nyb_status set_room(nyb_vocabulary *v, nyb_arena *arena, size_t room, nyb_err *err)
{
    size_t slots = 16;
    while (slots < 2 * room)
        slots *= 2;

    nyb_token *const tokens = nyb_arena_alloc(arena, room, sizeof(*tokens));
    uint32_t *const table = nyb_arena_alloc(arena, slots, sizeof(*table));
    if (!tokens || !table)
        return nyb_no_memory(err, "the vocabulary", room, sizeof(*tokens));

    if (v->count > 0)
        memcpy(tokens, v->tokens, v->count * sizeof(*tokens));
    v->tokens = tokens;
    v->room = room;
    v->slots = table;
    v->mask = slots - 1;
    for (size_t i = 0; i < v->count; i++) {
        size_t slot = nyb_hash_bytes(tokens[i].text, tokens[i].length) & v->mask;
        while (table[slot])
            slot = (slot + 1) & v->mask;
        table[slot] = (uint32_t) i + 1;
    }
    return NYB_OK;
}

nyb_status nyb_vocabulary_init(nyb_vocabulary *v, nyb_arena *arena, size_t room, nyb_err *err)
{
    *v = (nyb_vocabulary){0};
    if (room > NYB_TOKEN_ID_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT,
                        "a vocabulary of %zu tokens is more than the limit of %d", room,
                        NYB_TOKEN_ID_LIMIT);
    return set_room(v, arena, room < 16 ? 16 : room, err);
}

static nyb_status widen(nyb_vocabulary *v, nyb_arena *arena, size_t size, nyb_err *err)
{
    if (size <= v->by_id_room) {
        v->size = size > v->size ? size : v->size;
        return NYB_OK;
    }
    const size_t room = size > 2 * v->by_id_room ? size + v->room : 2 * size;
    uint32_t *const by_id = nyb_arena_alloc(arena, room, sizeof(*by_id));
    if (!by_id)
        return nyb_no_memory(err, "the vocabulary", room, sizeof(*by_id));
    if (v->size > 0)
        memcpy(by_id, v->by_id, v->size * sizeof(*by_id));
    v->by_id = by_id;
    v->by_id_room = room;
    v->size = size;
    return NYB_OK;
}

// A copy of the text with a NUL, from a block that many texts share. NULL when there is no room.
static char *keep_text(nyb_vocabulary *v, nyb_arena *arena, const char *text, size_t length)
{
    enum { POOL_BYTES = 64 << 10 };
    if (v->pool_left < length + 1) {
        const size_t bytes = length + 1 > POOL_BYTES ? length + 1 : POOL_BYTES;
        v->pool = nyb_arena_alloc(arena, bytes, 1);
        v->pool_left = v->pool ? bytes : 0;
        if (!v->pool)
            return NULL;
    }
    char *const copy = v->pool;
    memcpy(copy, text, length);
    copy[length] = '\0';
    v->pool += length + 1;
    v->pool_left -= length + 1;
    return copy;
}

// The slot that holds the text, or the free one where it belongs.
static size_t slot_of(const nyb_vocabulary *v, const char *text, size_t length)
{
    size_t slot = nyb_hash_bytes(text, length) & v->mask;
    while (v->slots[slot]) {
        const nyb_token *const token = &v->tokens[v->slots[slot] - 1];
        if (token->length == length && memcmp(token->text, text, length) == 0)
            break;
        slot = (slot + 1) & v->mask;
    }
    return slot;
}

nyb_status nyb_vocabulary_add(nyb_vocabulary *v, nyb_arena *arena, nyb_token token,
                              const char *name, nyb_err *err)
{
    if (token.id >= NYB_TOKEN_ID_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT, "%s: token '%.100s' has id %u, the limit is %d", name,
                        token.text, token.id, NYB_TOKEN_ID_LIMIT - 1);
    if (token.length > NYB_TOKEN_LENGTH_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT, "%s: token %u is %u bytes long, the limit is %d", name,
                        token.id, token.length, NYB_TOKEN_LENGTH_LIMIT);

    nyb_status status = NYB_OK;
    if (v->count == v->room)
        status = set_room(v, arena, 2 * v->room, err);
    if (status == NYB_OK)
        status = widen(v, arena, (size_t) token.id + 1, err);
    if (status != NYB_OK)
        return status;

    const size_t slot = slot_of(v, token.text, token.length);
    if (v->slots[slot])
        return nyb_fail(err, NYB_E_FORMAT, "%s: token '%.100s' is there twice, as id %u and %u",
                        name, token.text, v->tokens[v->slots[slot] - 1].id, token.id);
    token.text = keep_text(v, arena, token.text, token.length);
    if (!token.text)
        return nyb_no_memory(err, "the vocabulary", token.length, 1);

    v->tokens[v->count++] = token;
    v->slots[slot] = (uint32_t) v->count;
    if (!v->by_id[token.id])
        v->by_id[token.id] = (uint32_t) v->count;
    return NYB_OK;
}

int64_t nyb_vocabulary_find(const nyb_vocabulary *v, const char *text, size_t length)
{
    const uint32_t found = v->slots[slot_of(v, text, length)];
    return found ? (int64_t) v->tokens[found - 1].id : -1;
}

const nyb_token *nyb_vocabulary_at(const nyb_vocabulary *v, uint32_t id)
{
    if (id >= v->size || v->by_id[id] == 0)
        return NULL;
    return &v->tokens[v->by_id[id] - 1];
}
