// bytes.h - text that grows. Adding never fails at the spot: a buffer that found no room takes
// nothing more and says so at the end, in nyb_bytes_status(), so that code which builds text
// piece by piece has one check instead of one a piece.
#ifndef NYB_MODEL_BYTES_H_
#define NYB_MODEL_BYTES_H_

#include <string.h>

#include "core/memory.h"

// Zero-initialised it is valid and empty. `at` may be NULL while count is 0.
typedef struct nyb_bytes {
    char *at;
    size_t count, room;
    bool failed; // some bytes found no room; count only covers what came before
} nyb_bytes;

// Frees the content; the buffer is empty and usable.
void nyb_bytes_clear(nyb_bytes *bytes);

// Forgets the content and keeps the room.
static inline void nyb_bytes_reset(nyb_bytes *bytes)
{
    bytes->count = 0;
}

// Makes room for `more` bytes behind the content. False when there is none.
bool nyb_bytes_reserve(nyb_bytes *bytes, size_t more);

static inline void nyb_bytes_add(nyb_bytes *bytes, const char *at, size_t count)
{
    if (count == 0 || (bytes->room - bytes->count < count && !nyb_bytes_reserve(bytes, count)))
        return;
    memcpy(bytes->at + bytes->count, at, count);
    bytes->count += count;
}

// Appends a code point, in [0, 0x110000), as UTF-8.
void nyb_bytes_add_char(nyb_bytes *bytes, uint32_t c);

// NYB_E_NOMEM when something found no room since the last nyb_bytes_clear().
NYB_NODISCARD nyb_status nyb_bytes_status(const nyb_bytes *bytes, nyb_err *err);

// Half-open ranges of a text, as a list that grows in the same manner.
typedef struct nyb_range {
    size_t begin, end;
    bool flag; // what it means is its maker's business
} nyb_range;

typedef struct nyb_ranges {
    nyb_range *at;
    size_t count, room;
    bool failed;
} nyb_ranges;

void nyb_ranges_clear(nyb_ranges *ranges);
void nyb_ranges_add(nyb_ranges *ranges, size_t begin, size_t end, bool flag);
NYB_NODISCARD nyb_status nyb_ranges_status(const nyb_ranges *ranges, nyb_err *err);

#endif // NYB_MODEL_BYTES_H_
