// charsmap.h - SentencePiece's precompiled normalization: a double-array trie of texts, each
// leading to what replaces it.
#ifndef NYB_MODEL_CHARSMAP_H_
#define NYB_MODEL_CHARSMAP_H_

#include "core/memory.h"

// Borrows its bytes. With no units it replaces nothing.
typedef struct nyb_charsmap {
    const char *units; // [unit_count] little-endian 32-bit, any alignment
    size_t unit_count;
    const char *texts; // NUL-terminated replacements, one behind the other
    size_t texts_length;
} nyb_charsmap;

// Reads a blob: the trie's size in bytes (u32), the trie, the texts.
//
// NYB_E_FORMAT  sizes do not add up, or the texts do not end with a NUL.
NYB_NODISCARD nyb_status nyb_charsmap_open(nyb_charsmap *out, const char *blob, size_t length,
                                           const char *name, nyb_err *err);

// The longest prefix of the text that the map replaces: its length, and the replacement in
// *with. 0: none.
size_t nyb_charsmap_find(const nyb_charsmap *map, const char *text, size_t length,
                         const char **with, size_t *with_length);

// What the shortest prefix of the text that the map has is replaced with, or NULL: none. This is
// what the tokenizers library looks up, and it puts it in the place of all of the text.
const char *nyb_charsmap_first(const nyb_charsmap *map, const char *text, size_t length);

#endif // NYB_MODEL_CHARSMAP_H_
