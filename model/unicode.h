// unicode.h - UTF-8 and the properties of characters that tokenizers ask for.
#ifndef NYB_MODEL_UNICODE_H_
#define NYB_MODEL_UNICODE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/bytes.h"

enum {
    NYB_UTF8_MAX = 4,             // bytes of the longest character
    NYB_CHAR_REPLACEMENT = 0xfffd // what stands for bytes that are no character
};

// Bytes of the longest valid UTF-8 that the text starts with: `length` when all of it is valid.
size_t nyb_utf8_valid(const char *text, size_t length);

// The character at text[*at], moving *at behind it. The text has to be valid.
static inline uint32_t nyb_utf8_next(const char *text, size_t *at)
{
    const unsigned char *const s = (const unsigned char *) text + *at;
    if (s[0] < 0x80) {
        *at += 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *at += 2;
        return (uint32_t) (s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    }
    if (s[0] < 0xf0) {
        *at += 3;
        return (uint32_t) (s[0] & 0x0f) << 12 | (uint32_t) (s[1] & 0x3f) << 6 | (s[2] & 0x3f);
    }
    *at += 4;
    return (uint32_t) (s[0] & 0x07) << 18 | (uint32_t) (s[1] & 0x3f) << 12 |
           (uint32_t) (s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

// The place of the character that ends at text[at]; at >= 1, the text has to be valid.
static inline size_t nyb_utf8_back(const char *text, size_t at)
{
    do
        at--;
    while (at > 0 && ((unsigned char) text[at] & 0xc0) == 0x80);
    return at;
}

// Writes a code point in [0, 0x110000) and returns its number of bytes.
size_t nyb_utf8_put(uint32_t c, char out[NYB_UTF8_MAX]);

// Appends any bytes as UTF-8. Each longest run of bytes that starts a character and does not
// finish it becomes one U+FFFD, and so does each byte that starts none (Unicode 15, section
// 3.9, "Substitution of Maximal Subparts").
void nyb_utf8_repair(nyb_bytes *out, const char *bytes, size_t length);

bool nyb_char_is_space(uint32_t c);  // White_Space
bool nyb_char_is_number(uint32_t c); // general category N
bool nyb_char_is_punct(uint32_t c);  // ASCII punctuation and symbols, general category P
bool nyb_char_is_mark(uint32_t c);   // general category M
bool nyb_char_is_accent(uint32_t c); // general category Mn
bool nyb_char_is_other(uint32_t c);  // control, format, private use and surrogate characters
bool nyb_char_is_word(uint32_t c);   // \w of UTS 18: letters, marks, digits, connectors, joiners

// The end of the grapheme cluster (UAX 29, extended) that starts at text[at]; at < length.
size_t nyb_grapheme_end(const char *text, size_t at, size_t length);

// Appends the lower-case form of one character, without regard to its neighbours.
void nyb_char_lower(nyb_bytes *out, uint32_t c);

typedef enum nyb_form { NYB_NFC, NYB_NFD, NYB_NFKC, NYB_NFKD } nyb_form;

// Appends the text in a normalization form. The text has to be valid UTF-8.
NYB_NODISCARD nyb_status nyb_unicode_normalize(nyb_bytes *out, const char *text, size_t length,
                                               nyb_form form, nyb_err *err);

#endif // NYB_MODEL_UNICODE_H_
