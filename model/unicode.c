#include "model/unicode.h"

#include <utf8proc.h>

// Length of the character that starts at s, 0 when it is no valid character. *seen gets the
// bytes that belong together as the start of one (at least 1).
static size_t char_length(const unsigned char *s, size_t left, size_t *seen)
{
    size_t want = 0;
    unsigned char low = 0x80, high = 0xbf; // of the second byte
    *seen = 1;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        want = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        want = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        want = 4;
    else
        return 0;

    if (s[0] == 0xe0)
        low = 0xa0; // shorter forms exist
    else if (s[0] == 0xed)
        high = 0x9f; // surrogates
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f; // above U+10FFFF

    for (size_t i = 1; i < want; i++) {
        if (i >= left || s[i] < low || s[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
        *seen = i + 1;
    }
    return want;
}

size_t nyb_utf8_valid(const char *text, size_t length)
{
    const unsigned char *const s = (const unsigned char *) text;
    size_t at = 0, seen = 0;
    while (at < length) {
        uint64_t eight = 0;
        if (length - at >= sizeof(eight)) {
            memcpy(&eight, s + at, sizeof(eight));
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        const size_t bytes = char_length(s + at, length - at, &seen);
        if (bytes == 0)
            return at;
        at += bytes;
    }
    return at;
}

size_t nyb_utf8_put(uint32_t c, char out[NYB_UTF8_MAX])
{
    if (c < 0x80) {
        out[0] = (char) c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char) (0xc0 | c >> 6);
        out[1] = (char) (0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char) (0xe0 | c >> 12);
        out[1] = (char) (0x80 | (c >> 6 & 0x3f));
        out[2] = (char) (0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char) (0xf0 | c >> 18);
    out[1] = (char) (0x80 | (c >> 12 & 0x3f));
    out[2] = (char) (0x80 | (c >> 6 & 0x3f));
    out[3] = (char) (0x80 | (c & 0x3f));
    return 4;
}

void nyb_utf8_repair(nyb_bytes *out, const char *bytes, size_t length)
{
    size_t at = 0;
    while (at < length) {
        const size_t valid = nyb_utf8_valid(bytes + at, length - at);
        size_t seen = 0;
        nyb_bytes_add(out, bytes + at, valid);
        at += valid;
        if (at == length)
            return;
        (void) char_length((const unsigned char *) bytes + at, length - at, &seen);
        nyb_bytes_add_char(out, NYB_CHAR_REPLACEMENT);
        at += seen;
    }
}

bool nyb_char_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t) c);
}

bool nyb_char_is_number(uint32_t c)
{
    const utf8proc_category_t kind = category(c);
    return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

bool nyb_char_is_punct(uint32_t c)
{
    if (c < 0x80)
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
               (c >= '{' && c <= '~');
    const utf8proc_category_t kind = category(c);
    return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool nyb_char_is_accent(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_MN;
}

bool nyb_char_is_other(uint32_t c)
{
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
           kind == UTF8PROC_CATEGORY_CO || kind == UTF8PROC_CATEGORY_CS;
}

size_t nyb_grapheme_end(const char *text, size_t at, size_t length)
{
    utf8proc_int32_t state = 0;
    uint32_t before = nyb_utf8_next(text, &at);
    while (at < length) {
        size_t behind = at;
        const uint32_t c = nyb_utf8_next(text, &behind);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t) before, (utf8proc_int32_t) c,
                                             &state))
            break;
        before = c;
        at = behind;
    }
    return at;
}

bool nyb_char_is_mark(uint32_t c)
{
    const utf8proc_category_t kind = category(c);
    return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool nyb_char_is_word(uint32_t c)
{
    const utf8proc_category_t kind = category(c);
    if (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ME)
        return true; // letters and marks
    if (kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
        kind == UTF8PROC_CATEGORY_PC)
        return true;
    // Symbols that are Other_Alphabetic (circled and squared letters), and the joiners.
    return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
           (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c ||
           c == 0x200d;
}

void nyb_char_lower(nyb_bytes *out, uint32_t c)
{
    if (c == 0x130) // the one character whose lower case is two
        nyb_bytes_add(out, "i\xcc\x87", 3);
    else
        nyb_bytes_add_char(out, (uint32_t) utf8proc_tolower((utf8proc_int32_t) c));
}

// Code points on their way through a normalization form.
typedef struct points {
    utf8proc_int32_t *at;
    size_t count, room;
} points;

static nyb_status grow(points *p, size_t more, nyb_err *err)
{
    if (p->room - p->count >= more)
        return NYB_OK;
    const size_t room = 2 * (p->count + more) + 64;
    utf8proc_int32_t *const at = nyb_alloc_raw(room, sizeof(*at));
    if (!at)
        return nyb_no_memory(err, "code points", room, sizeof(*at));
    if (p->count > 0)
        memcpy(at, p->at, p->count * sizeof(*at));
    nyb_free(p->at);
    p->at = at;
    p->room = room;
    return NYB_OK;
}

static nyb_status decompose(points *p, const char *text, size_t length, utf8proc_option_t options,
                            nyb_err *err)
{
    enum { LONGEST = 32 }; // the longest decomposition has 18 characters
    for (size_t i = 0; i < length;) {
        const utf8proc_int32_t c = (utf8proc_int32_t) nyb_utf8_next(text, &i);
        int boundary = 0;
        const nyb_status status = grow(p, LONGEST, err);
        if (status != NYB_OK)
            return status;
        const utf8proc_ssize_t put =
            utf8proc_decompose_char(c, p->at + p->count, LONGEST, options, &boundary);
        if (put < 0 || put > LONGEST)
            p->at[p->count++] = c;
        else
            p->count += (size_t) put;
    }
    return NYB_OK;
}

static unsigned combining_class(utf8proc_int32_t c)
{
    return (unsigned) utf8proc_get_property(c)->combining_class & 0xff;
}

// Sorts a run of characters with classes above 0 by class, in linear time: a text may be one
// run of a million marks.
static nyb_status sort_run(utf8proc_int32_t *at, size_t count, nyb_err *err)
{
    size_t begins[257] = {0};
    bool sorted = true;
    for (size_t i = 0; i < count; i++) {
        begins[combining_class(at[i]) + 1]++;
        sorted = sorted && (i == 0 || combining_class(at[i - 1]) <= combining_class(at[i]));
    }
    if (sorted)
        return NYB_OK;

    utf8proc_int32_t *const copy = nyb_alloc_raw(count, sizeof(*copy));
    if (!copy)
        return nyb_no_memory(err, "code points", count, sizeof(*copy));
    memcpy(copy, at, count * sizeof(*copy));
    for (size_t k = 1; k < 257; k++)
        begins[k] += begins[k - 1];
    for (size_t i = 0; i < count; i++)
        at[begins[combining_class(copy[i])]++] = copy[i];
    nyb_free(copy);
    return NYB_OK;
}

static nyb_status sort_marks(points *p, nyb_err *err)
{
    for (size_t i = 0; i < p->count;) {
        size_t end = i;
        while (end < p->count && combining_class(p->at[end]) > 0)
            end++;
        const nyb_status status = end - i > 1 ? sort_run(p->at + i, end - i, err) : NYB_OK;
        if (status != NYB_OK)
            return status;
        i = end + 1;
    }
    return NYB_OK;
}

static nyb_status normalize_run(nyb_bytes *out, points *p, const char *text, size_t length,
                                utf8proc_option_t options, nyb_err *err)
{
    p->count = 0;
    nyb_status status = decompose(p, text, length, options, err);
    if (status == NYB_OK)
        status = sort_marks(p, err);
    if (status != NYB_OK)
        return status;
    const utf8proc_ssize_t count =
        utf8proc_normalize_utf32(p->at, (utf8proc_ssize_t) p->count, options);
    for (utf8proc_ssize_t i = 0; i < count; i++)
        nyb_bytes_add_char(out, (uint32_t) p->at[i]);
    return NYB_OK;
}

nyb_status nyb_unicode_normalize(nyb_bytes *out, const char *text, size_t length, nyb_form form,
                                 nyb_err *err)
{
    static const int options[] = {
        [NYB_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NYB_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [NYB_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NYB_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    points p = {0};
    nyb_status status = NYB_OK;
    size_t at = 0;

    // ASCII is its own form; only its last character before other text can combine with it.
    while (at < length && status == NYB_OK) {
        size_t ascii = at;
        while (ascii < length && (unsigned char) text[ascii] < 0x80)
            ascii++;
        size_t end = ascii;
        while (end < length && (unsigned char) text[end] >= 0x80)
            end++;
        const size_t begin = ascii < end && ascii > at ? ascii - 1 : ascii;
        nyb_bytes_add(out, text + at, begin - at);
        if (begin < end)
            status = normalize_run(out, &p, text + begin, end - begin,
                                   (utf8proc_option_t) options[form], err);
        at = end;
    }
    nyb_free(p.at);
    return status;
}
