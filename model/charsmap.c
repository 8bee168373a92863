// The trie is darts-clone's: unit i of a node at `at` is at (at ^ offset(unit) ^ byte). A unit is
// 31..0: bit 31 set on values; bit 9 widens the offset by 8; bit 8: the node has a value, which
// is the child for byte 0; bits 7..0 the byte that leads here.
#include "model/charsmap.h"

#include <string.h>

static uint32_t unit_at(const nyb_charsmap *map, size_t at)
{
    unsigned char b[4];
    memcpy(b, map->units + 4 * at, sizeof(b));
    return (uint32_t) b[0] | (uint32_t) b[1] << 8 | (uint32_t) b[2] << 16 | (uint32_t) b[3] << 24;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t) (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

nyb_status nyb_charsmap_open(nyb_charsmap *out, const char *blob, size_t length, const char *name,
                             nyb_err *err)
{
    *out = (nyb_charsmap){0};
    if (length == 0)
        return NYB_OK;
    nyb_charsmap head = {.units = blob, .unit_count = 1};
    const size_t bytes = length >= 4 ? unit_at(&head, 0) : 0;
    if (bytes == 0 || bytes % 4 != 0 || bytes > length - 4)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: the character map of %zu bytes says that its trie has %zu", name,
                        length, bytes);
    if (bytes == length - 4 || blob[length - 1] != '\0')
        return nyb_fail(err, NYB_E_FORMAT, "%s: the texts of the character map have no end", name);
    *out = (nyb_charsmap){.units = blob + 4,
                          .unit_count = bytes / 4,
                          .texts = blob + 4 + bytes,
                          .texts_length = length - 4 - bytes};
    return NYB_OK;
}

// Walks the trie along the text. Returns the bytes of the longest prefix that the map has, or of
// the shortest one.
static size_t walk(const nyb_charsmap *map, const char *text, size_t length, bool shortest,
                   const char **with)
{
    size_t found = 0;
    if (map->unit_count == 0)
        return 0;
    size_t at = offset_of(unit_at(map, 0));
    for (size_t i = 0; i < length; i++) {
        at ^= (unsigned char) text[i];
        if (at >= map->unit_count)
            break;
        const uint32_t unit = unit_at(map, at);
        // A damaged trie may lead anywhere: bit 31 makes a value unit match no byte.
        if ((unit & 0x800000ffu) != (unsigned char) text[i])
            break;
        at ^= offset_of(unit);
        if ((unit >> 8 & 1) == 0 || at >= map->unit_count)
            continue;
        const size_t value = unit_at(map, at) & 0x7fffffffu;
        if (value < map->texts_length) {
            *with = map->texts + value;
            found = i + 1;
            if (shortest)
                break;
        }
    }
    return found;
}

size_t nyb_charsmap_find(const nyb_charsmap *map, const char *text, size_t length,
                         const char **with, size_t *with_length)
{
    const size_t longest = walk(map, text, length, false, with);
    if (longest > 0)
        *with_length = strlen(*with); // the last text ends with a NUL
    return longest;
}

const char *nyb_charsmap_first(const nyb_charsmap *map, const char *text, size_t length)
{
    const char *with = NULL;
    return walk(map, text, strnlen(text, length), true, &with) > 0 ? with : NULL;
}
