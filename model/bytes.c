#include "model/bytes.h"

#include "model/unicode.h"

void nyb_bytes_clear(nyb_bytes *bytes)
{
    nyb_free(bytes->at);
    *bytes = (nyb_bytes){0};
}

bool nyb_bytes_reserve(nyb_bytes *bytes, size_t more)
{
    size_t want = 0, room = 0;
    if (bytes->failed)
        return false;
    if (bytes->room - bytes->count >= more)
        return true;

    char *at = NULL;
    if (nyb_add_size(bytes->count, more, &want) && nyb_mul_size(want, 2, &room))
        at = nyb_alloc_raw(room < 256 ? 256 : room, 1);
    if (!at) {
        bytes->failed = true;
        return false;
    }
    if (bytes->count > 0)
        memcpy(at, bytes->at, bytes->count);
    nyb_free(bytes->at);
    bytes->at = at;
    bytes->room = room < 256 ? 256 : room;
    return true;
}

void nyb_bytes_add_char(nyb_bytes *bytes, uint32_t c)
{
    char text[NYB_UTF8_MAX];
    nyb_bytes_add(bytes, text, nyb_utf8_put(c, text));
}

nyb_status nyb_bytes_status(const nyb_bytes *bytes, nyb_err *err)
{
    return bytes->failed ? nyb_no_memory(err, "text", bytes->room, 2) : NYB_OK;
}

void nyb_ranges_clear(nyb_ranges *ranges)
{
    nyb_free(ranges->at);
    *ranges = (nyb_ranges){0};
}

static bool grow_ranges(nyb_ranges *ranges)
{
    const size_t room = ranges->room ? 2 * ranges->room : 64;
    nyb_range *const at = ranges->failed ? NULL : nyb_alloc_raw(room, sizeof(*at));
    if (!at) {
        ranges->failed = true;
        return false;
    }
    if (ranges->count > 0)
        memcpy(at, ranges->at, ranges->count * sizeof(*at));
    nyb_free(ranges->at);
    ranges->at = at;
    ranges->room = room;
    return true;
}

void nyb_ranges_add(nyb_ranges *ranges, size_t begin, size_t end, bool flag)
{
    if (ranges->count == ranges->room && !grow_ranges(ranges))
        return;
    ranges->at[ranges->count++] = (nyb_range){.begin = begin, .end = end, .flag = flag};
}

nyb_status nyb_ranges_status(const nyb_ranges *ranges, nyb_err *err)
{
    return ranges->failed ? nyb_no_memory(err, "pieces of text", ranges->room, sizeof(nyb_range))
                          : NYB_OK;
}
