#include "model/byte_level.h"

// Printable bytes of Latin-1 stand for themselves. The others, counted up in their order, are
// the characters from U+0100 on: 0..32 first, then 127..160, then 173.
static uint32_t char_of(unsigned byte)
{
    if (byte <= 32)
        return 0x100 + byte;
    if (byte >= 127 && byte <= 160)
        return 0x100 + 33 + byte - 127;
    if (byte == 173)
        return 0x100 + 67;
    return byte;
}

void nyb_byte_level_put(nyb_bytes *out, const char *bytes, size_t length)
{
    if (!nyb_bytes_reserve(out, 2 * length))
        return;
    char *at = out->at + out->count;
    for (size_t i = 0; i < length; i++) {
        const uint32_t c = char_of((unsigned char) bytes[i]);
        if (c < 0x80) {
            *at++ = (char) c;
        } else {
            *at++ = (char) (0xc0 | c >> 6);
            *at++ = (char) (0x80 | (c & 0x3f));
        }
    }
    out->count = (size_t) (at - out->at);
}

int nyb_byte_level_byte(uint32_t c)
{
    if (c >= 0x100 && c < 0x100 + 68) {
        const unsigned n = c - 0x100;
        return (int) (n <= 32 ? n : n < 67 ? n - 33 + 127 : 173);
    }
    return c < 0x100 && char_of(c) == c ? (int) c : -1;
}
