// byte_trie.h - texts by their bytes, for finding every known text that a position starts with.
#ifndef NYB_MODEL_BYTE_TRIE_H_
#define NYB_MODEL_BYTE_TRIE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/memory.h"

// Node 0 is the root. Zero-initialised it is not valid yet: nyb_byte_trie_init().
typedef struct nyb_byte_trie {
    uint64_t *keys;     // [mask + 1] open addressing: (node << 8 | byte) + 1, 0: free
    uint32_t *children; // [mask + 1]
    size_t mask, edges;
    uint32_t *values; // [room] by node, NYB_TRIE_NONE: no text ends here
    size_t count, room;
    uint32_t first[256]; // children of the root, 0: none
} nyb_byte_trie;

#define NYB_TRIE_NONE UINT32_MAX

NYB_NODISCARD nyb_status nyb_byte_trie_init(nyb_byte_trie *trie, nyb_err *err);
void nyb_byte_trie_clear(nyb_byte_trie *trie); // zeroed is fine

// Gives the text a value below NYB_TRIE_NONE; of two equal texts the last one's counts.
NYB_NODISCARD nyb_status nyb_byte_trie_put(nyb_byte_trie *trie, const char *text, size_t length,
                                           uint32_t value, nyb_err *err);

// The node that a byte leads to from `node`, 0: none.
static inline uint32_t nyb_byte_trie_next(const nyb_byte_trie *trie, uint32_t node,
                                          unsigned char byte)
{
    if (node == 0)
        return trie->first[byte];
    const uint64_t key = ((uint64_t) node << 8 | byte) + 1;
    uint64_t hash = key * 0x9e3779b97f4a7c15u;
    for (size_t slot = (size_t) (hash ^ hash >> 32) & trie->mask; trie->keys[slot] != 0;
         slot = (slot + 1) & trie->mask) {
        if (trie->keys[slot] == key)
            return trie->children[slot];
    }
    return 0;
}

#endif // NYB_MODEL_BYTE_TRIE_H_
