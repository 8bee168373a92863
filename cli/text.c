#include "cli/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static const uint32_t BROKEN = UINT32_MAX;

// Reads one character at *at and moves *at behind it; BROKEN for a byte that starts none.
static uint32_t next_char(const char **at)
{
    const unsigned char *const s = (const unsigned char *) *at;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned more = s[0] < 0x80   ? 0
                          : s[0] < 0xc2 ? 9
                          : s[0] < 0xe0 ? 1
                          : s[0] < 0xf0 ? 2
                          : s[0] < 0xf5 ? 3
                                        : 9;
    *at += 1;
    if (more == 0)
        return s[0];
    if (more == 9)
        return BROKEN;

    uint32_t code = s[0] & (0x3fu >> more);
    for (unsigned i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return BROKEN;
        code = code << 6 | (s[i] & 0x3f);
    }
    if (code < least[more] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
        return BROKEN;
    *at += more;
    return code;
}

typedef struct range {
    uint32_t first, last;
} range;

static bool within(uint32_t code, const range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    }
    return false;
}

// The blocks that matter in file and tensor names; terminals differ on the rest anyway.
static size_t char_width(uint32_t code)
{
    static const range none[] = {{0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},
                                 {0x610, 0x61a},   {0x64b, 0x65f},   {0x200b, 0x200f},
                                 {0x202a, 0x202e}, {0x2060, 0x2064}, {0x20d0, 0x20f0},
                                 {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0xfeff, 0xfeff}};
    static const range wide[] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},
                                 {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe30, 0xfe6f},
                                 {0xff00, 0xff60},   {0xffe0, 0xffe6},   {0x1f300, 0x1f64f},
                                 {0x1f680, 0x1f6ff}, {0x1f900, 0x1faff}, {0x20000, 0x3fffd}};
    if (within(code, none, sizeof(none) / sizeof(none[0])))
        return 0;
    return within(code, wide, sizeof(wide) / sizeof(wide[0])) ? 2 : 1;
}

size_t nyb_text_width(const char *text)
{
    size_t width = 0;
    while (*text)
        width += char_width(next_char(&text));
    return width;
}

void nyb_text_clean(char *out, size_t size, const char *text)
{
    size_t used = 0;
    while (*text) {
        const char *const from = text;
        const uint32_t code = next_char(&text);
        const bool harmless = code != BROKEN && code >= 0x20 && !(code >= 0x7f && code < 0xa0) &&
                              !(code >= 0x202a && code <= 0x202e) &&
                              !(code >= 0x2066 && code <= 0x2069);
        const size_t length = harmless ? (size_t) (text - from) : 1;
        if (used + length >= size)
            break;
        memcpy(out + used, harmless ? from : "?", length);
        used += length;
    }
    out[used] = '\0';
}

void nyb_text_wrap(FILE *out, const char *text, size_t indent, size_t width)
{
    size_t column = indent;
    bool start = true; // of a line
    while (*text) {
        const size_t spaces = strspn(text, " \n"), length = strcspn(text + spaces, " \n");
        bool paragraph = false;
        for (size_t i = 0; i + 1 < spaces; i++)
            paragraph = paragraph || (text[i] == '\n' && text[i + 1] == '\n');

        if (length == 0)
            break;
        if (!start && (paragraph || column + 1 + length > width)) {
            (void) fprintf(out, "%s\n%*s", paragraph ? "\n" : "", (int) indent, "");
            column = indent;
            start = true;
        }
        (void) fprintf(out, "%s%.*s", start ? "" : " ", (int) length, text + spaces);
        column += length + !start;
        start = false;
        text += spaces + length;
    }
    (void) fputc('\n', out);
}

enum { LONGEST = 63 };

size_t nyb_text_distance(const char *a, const char *b)
{
    const size_t na = strlen(a), nb = strlen(b);
    size_t rows[3][LONGEST + 1] = {{0}}; // this row, the one before, and the one before that
    if (na > LONGEST || nb > LONGEST)
        return SIZE_MAX;

    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *const row = rows[i % 3];
        const size_t *const above = rows[(i + 2) % 3], *const second = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                second[j - 2] + 1 < best)
                best = second[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[na % 3][nb];
}

int nyb_text_alike(const char *typed, size_t distance)
{
    return distance <= 1 + strlen(typed) / 4;
}
