#include "eval/markup.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/unicode.h"

void nyb_markup_put(nyb_bytes *out, const char *markup)
{
    nyb_bytes_add(out, markup, strlen(markup));
}

void nyb_markup_format(nyb_bytes *out, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (length < 0 || (size_t) length >= sizeof(text))
        out->failed = true; // no caller's line is that long
    else
        nyb_bytes_add(out, text, (size_t) length);
}

// ---- Text from outside ----------------------------------------------------------------------

// Characters that XML refuses, or that make a page show text in another order than it has.
static bool is_harmful(uint32_t c)
{
    const bool control = (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7f && c < 0xa0);
    const bool direction = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ||
                           c == 0x200e || c == 0x200f || c == 0x061c;
    return control || direction || (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c <= 0xfdef);
}

static void add_char(nyb_bytes *out, uint32_t c)
{
    switch (c) {
    case '&':
        nyb_markup_put(out, "&amp;");
        return;
    case '<':
        nyb_markup_put(out, "&lt;");
        return;
    case '>':
        nyb_markup_put(out, "&gt;");
        return;
    case '"':
        nyb_markup_put(out, "&quot;");
        return;
    case '\'':
        nyb_markup_put(out, "&#39;");
        return;
    default:
        nyb_bytes_add_char(out, is_harmful(c) ? NYB_CHAR_REPLACEMENT : c);
    }
}

// From the first scripts of wide characters on, all are taken to be wide: labels get too much room
// rather than too little.
static size_t columns_of(uint32_t c)
{
    return c >= 0x1100 ? 2 : 1;
}

static size_t count_columns(const nyb_bytes *text)
{
    size_t columns = 0;
    for (size_t at = 0; at < text->count;)
        columns += columns_of(nyb_utf8_next(text->at, &at));
    return columns;
}

static void add_columns(nyb_bytes *out, const char *text, size_t most)
{
    nyb_bytes whole = {0};
    nyb_utf8_repair(&whole, text, strlen(text));
    const bool cut = count_columns(&whole) > most;
    size_t columns = 0;
    for (size_t at = 0; at < whole.count;) {
        const uint32_t c = nyb_utf8_next(whole.at, &at);
        columns += columns_of(c);
        if (cut && columns + 1 > most)
            break;
        add_char(out, c);
    }
    if (cut)
        nyb_bytes_add_char(out, 0x2026);
    out->failed = out->failed || whole.failed;
    nyb_bytes_clear(&whole);
}

void nyb_markup_text(nyb_bytes *out, const char *text)
{
    add_columns(out, text, SIZE_MAX);
}

void nyb_markup_short(nyb_bytes *out, const char *text, size_t columns)
{
    add_columns(out, text, columns);
}

size_t nyb_text_columns(const char *text)
{
    nyb_bytes whole = {0};
    nyb_utf8_repair(&whole, text, strlen(text));
    const size_t columns = count_columns(&whole);
    nyb_bytes_clear(&whole);
    return columns;
}

// ---- Numbers --------------------------------------------------------------------------------

// Puts commas between thousands of the digits before the point.
static void add_commas(char out[NYB_NUMBER_TEXT], const char *digits)
{
    const size_t sign = digits[0] == '-' ? 1 : 0;
    const size_t whole = strcspn(digits + sign, ".");
    size_t to = 0;
    for (size_t i = 0; digits[i] && to + 2 < NYB_NUMBER_TEXT; i++) {
        const size_t place = i - sign; // of a digit, from the left
        if (i > sign && place < whole && (whole - place) % 3 == 0)
            out[to++] = ',';
        out[to++] = digits[i];
    }
    out[to] = '\0';
}

// The exponent without its leading zeros.
static void shorten_exponent(char *text)
{
    char *const e = strchr(text, 'e');
    if (!e)
        return;
    size_t zeros = 2;
    while (e[zeros] == '0' && e[zeros + 1])
        zeros++;
    memmove(e + 2, e + zeros, strlen(e + zeros) + 1);
}

const char *nyb_number_text(char out[NYB_NUMBER_TEXT], double value)
{
    char digits[NYB_NUMBER_TEXT];
    const double size = fabs(value);
    if (!isfinite(value)) {
        (void) snprintf(out, NYB_NUMBER_TEXT, "-");
    } else if (value == 0.0) {
        (void) snprintf(out, NYB_NUMBER_TEXT, "0");
    } else if (size < 1e-3 || size >= 999950.0) {
        (void) snprintf(out, NYB_NUMBER_TEXT, "%.3e", value);
        shorten_exponent(out);
    } else {
        // The place of the first digit, once rounded to 4 of them.
        (void) snprintf(digits, sizeof(digits), "%.3e", value);
        const int first = (int) strtol(strchr(digits, 'e') + 1, NULL, 10);
        (void) snprintf(digits, sizeof(digits), "%.*f", first < 3 ? 3 - first : 0, value);
        add_commas(out, digits);
    }
    return out;
}

const char *nyb_count_text(char out[NYB_NUMBER_TEXT], double value)
{
    char digits[NYB_NUMBER_TEXT];
    if (!(fabs(value) < 1e15))
        return nyb_number_text(out, value);
    (void) snprintf(digits, sizeof(digits), "%.0f", value);
    add_commas(out, digits);
    return out;
}

const char *nyb_size_text(char out[NYB_NUMBER_TEXT], double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    char digits[NYB_NUMBER_TEXT];
    size_t unit = 0;
    if (!isfinite(bytes))
        return nyb_number_text(out, bytes);
    while (bytes >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        bytes /= 1024.0;
        unit++;
    }
    if (unit == 0)
        (void) nyb_count_text(digits, bytes);
    else
        (void) nyb_number_text(digits, bytes);
    (void) snprintf(out, NYB_NUMBER_TEXT, "%.30s %s", digits, units[unit]);
    return out;
}

const char *nyb_exact_text(char out[NYB_NUMBER_TEXT], double value)
{
    for (int digits = 6; digits <= 17; digits++) {
        (void) snprintf(out, NYB_NUMBER_TEXT, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return out;
}

void nyb_markup_cell(nyb_bytes *out, double value,
                     const char *(*text)(char out[NYB_NUMBER_TEXT], double value))
{
    char shown[NYB_NUMBER_TEXT], exact[NYB_NUMBER_TEXT];
    if (!isfinite(value)) {
        nyb_markup_put(out, "<td class=\"n\">-</td>");
        return;
    }
    nyb_markup_format(out, "<td class=\"n\"><data value=\"%s\">%s</data></td>",
                      nyb_exact_text(exact, value), text(shown, value));
}
