#include "model/byte_trie.h"

#include <string.h>

enum { FIRST_SLOTS = 1 << 10, FIRST_NODES = 1 << 8 };

nyb_status nyb_byte_trie_init(nyb_byte_trie *trie, nyb_err *err)
{
    *trie = (nyb_byte_trie){.mask = FIRST_SLOTS - 1, .count = 1, .room = FIRST_NODES};
    trie->keys = nyb_alloc(FIRST_SLOTS, sizeof(*trie->keys));
    trie->children = nyb_alloc(FIRST_SLOTS, sizeof(*trie->children));
    trie->values = nyb_alloc(FIRST_NODES, sizeof(*trie->values));
    if (!trie->keys || !trie->children || !trie->values) {
        nyb_byte_trie_clear(trie);
        return nyb_no_memory(err, "a table of tokens", FIRST_SLOTS, sizeof(*trie->keys));
    }
    trie->values[0] = NYB_TRIE_NONE;
    return NYB_OK;
}

void nyb_byte_trie_clear(nyb_byte_trie *trie)
{
    nyb_free(trie->keys);
    nyb_free(trie->children);
    nyb_free(trie->values);
    *trie = (nyb_byte_trie){0};
}

static void put_edge(nyb_byte_trie *trie, uint64_t key, uint32_t child)
{
    const uint64_t hash = key * 0x9e3779b97f4a7c15u;
    size_t slot = (size_t) (hash ^ hash >> 32) & trie->mask;
    while (trie->keys[slot] != 0)
        slot = (slot + 1) & trie->mask;
    trie->keys[slot] = key;
    trie->children[slot] = child;
}

// Twice the slots when they are half full.
static nyb_status grow_edges(nyb_byte_trie *trie, nyb_err *err)
{
    if (2 * (trie->edges + 1) <= trie->mask + 1)
        return NYB_OK;
    const nyb_byte_trie old = *trie;
    const size_t slots = 2 * (old.mask + 1);
    uint64_t *const keys = nyb_alloc(slots, sizeof(*keys));
    uint32_t *const children = nyb_alloc(slots, sizeof(*children));
    if (!keys || !children) {
        nyb_free(keys);
        nyb_free(children);
        return nyb_no_memory(err, "a table of tokens", slots, sizeof(*keys));
    }
    trie->keys = keys;
    trie->children = children;
    trie->mask = slots - 1;
    for (size_t i = 0; i <= old.mask; i++)
        if (old.keys[i] != 0)
            put_edge(trie, old.keys[i], old.children[i]);
    nyb_free(old.keys);
    nyb_free(old.children);
    return NYB_OK;
}

static nyb_status grow_nodes(nyb_byte_trie *trie, nyb_err *err)
{
    if (trie->count < trie->room)
        return NYB_OK;
    const size_t room = 2 * trie->room;
    uint32_t *const values = room < UINT32_MAX ? nyb_alloc_raw(room, sizeof(*values)) : NULL;
    if (!values)
        return nyb_no_memory(err, "a table of tokens", room, sizeof(*values));
    memcpy(values, trie->values, trie->count * sizeof(*values));
    nyb_free(trie->values);
    trie->values = values;
    trie->room = room;
    return NYB_OK;
}

// The node behind `node`, made where it is missing.
static nyb_status child_of(nyb_byte_trie *trie, uint32_t node, unsigned char byte, uint32_t *out,
                           nyb_err *err)
{
    *out = nyb_byte_trie_next(trie, node, byte);
    if (*out)
        return NYB_OK;
    nyb_status status = grow_nodes(trie, err);
    if (status == NYB_OK)
        status = grow_edges(trie, err);
    if (status != NYB_OK)
        return status;
    *out = (uint32_t) trie->count++;
    trie->values[*out] = NYB_TRIE_NONE;
    if (node == 0) {
        trie->first[byte] = *out;
        return NYB_OK;
    }
    put_edge(trie, ((uint64_t) node << 8 | byte) + 1, *out);
    trie->edges++;
    return NYB_OK;
}

nyb_status nyb_byte_trie_put(nyb_byte_trie *trie, const char *text, size_t length, uint32_t value,
                             nyb_err *err)
{
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        const nyb_status status = child_of(trie, node, (unsigned char) text[i], &node, err);
        if (status != NYB_OK)
            return status;
    }
    trie->values[node] = value;
    return NYB_OK;
}
