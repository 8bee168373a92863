// Templates to tokens. White space around tags goes as Jinja's lexer has it with trim_blocks and
// lstrip_blocks, which transformers sets.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/jinja_private.h"
#include "model/unicode.h"

typedef struct scanner {
    nyb_jinja_tokens *out;
    nyb_arena *arena;
    const char *text;
    size_t at, length;
    unsigned line;
    bool line_starts; // what comes next is at the start of a line
    nyb_err *err;
} scanner;

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static nyb_status add(scanner *s, nyb_jinja_token token)
{
    nyb_jinja_tokens *const list = s->out;
    if (list->count == list->room) {
        const size_t room = list->room ? 2 * list->room : 256;
        nyb_jinja_token *const at = nyb_arena_alloc(s->arena, room, sizeof(*at));
        if (!at)
            return nyb_no_memory(s->err, "a template", room, sizeof(*at));
        if (list->count > 0)
            memcpy(at, list->at, list->count * sizeof(*at));
        list->at = at;
        list->room = room;
    }
    token.line = s->line;
    list->at[list->count++] = token;
    return NYB_OK;
}

static void skip(scanner *s, size_t count)
{
    for (size_t i = 0; i < count; i++)
        s->line += s->text[s->at + i] == '\n';
    s->at += count;
}

static bool starts(const scanner *s, const char *with)
{
    const size_t length = strlen(with);
    return s->length - s->at >= length && memcmp(s->text + s->at, with, length) == 0;
}

// Behind a tag: with '-' all white space goes, else one line end does where `trim` says so.
static void skip_behind(scanner *s, bool all, bool trim)
{
    s->line_starts = false;
    while (all && s->at < s->length && is_blank(s->text[s->at])) {
        s->line_starts = s->text[s->at] == '\n';
        skip(s, 1);
    }
    if (!all && trim && s->at < s->length && s->text[s->at] == '\n') {
        s->line_starts = true;
        skip(s, 1);
    }
}

static nyb_status scan_data(scanner *s)
{
    size_t end = s->at;
    while (end < s->length && !(s->text[end] == '{' && end + 1 < s->length &&
                                strchr("{%#", s->text[end + 1]) && s->text[end + 1] != '\0'))
        end++;
    size_t kept = end;
    if (end < s->length) {
        const char sign = end + 2 < s->length ? s->text[end + 2] : '\0';
        size_t back = end;
        while (back > s->at && is_blank(s->text[back - 1]) &&
               (sign == '-' || s->text[back - 1] != '\n'))
            back--;
        const bool at_line = back > s->at ? s->text[back - 1] == '\n' : s->line_starts;
        if (sign == '-' || (sign != '+' && s->text[end + 1] != '{' && at_line))
            kept = back;
    }
    const nyb_jinja_token token = {
        .kind = JINJA_DATA, .text = s->text + s->at, .length = kept - s->at};
    const nyb_status status = kept > s->at ? add(s, token) : NYB_OK;
    skip(s, end - s->at);
    return status;
}

static nyb_status fault(scanner *s, const char *what)
{
    return nyb_fail(s->err, NYB_E_FORMAT, "line %u of the template: %s", s->line, what);
}

static nyb_status scan_number(scanner *s)
{
    size_t end = s->at;
    char digits[64];
    size_t count = 0;
    bool real = false;
    while (end < s->length &&
           (is_digit(s->text[end]) || s->text[end] == '_' ||
            (s->text[end] == '.' && !real && end + 1 < s->length && is_digit(s->text[end + 1])))) {
        real = real || s->text[end] == '.';
        if (count + 1 == sizeof(digits))
            return fault(s, "a number is too long");
        if (s->text[end] != '_')
            digits[count++] = s->text[end];
        end++;
    }
    digits[count] = '\0';
    errno = 0;
    nyb_jinja_token token = {.kind = real ? JINJA_REAL : JINJA_INTEGER, .text = "number"};
    if (real)
        token.real = strtod(digits, NULL);
    else
        token.integer = strtoll(digits, NULL, 10);
    if (errno)
        return fault(s, "a number is out of range");
    skip(s, end - s->at);
    return add(s, token);
}

static int hex_of(const char *at, size_t count)
{
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        const char c = at[i];
        const int digit = is_digit(c)            ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

// Resolves the escape at at[0] == '\\' of `left` bytes; returns how many it has, 0: a wrong one.
static size_t put_escape(nyb_bytes *out, const char *at, size_t left)
{
    static const char from[] = "nrtabfv\\'\"0", to[] = "\n\r\t\a\b\f\v\\'\"";
    const char *const found = left > 1 && at[1] ? strchr(from, at[1]) : NULL;
    if (left > 1 && at[1] == '\n')
        return 2; // the string goes on in the next line
    if (found) {
        nyb_bytes_add(out, &to[found - from], 1);
        return 2;
    }
    const size_t digits = left > 1 && at[1] == 'x' ? 2 : left > 1 && at[1] == 'u' ? 4 : 0;
    if (digits > 0) {
        const int c = left >= 2 + digits ? hex_of(at + 2, digits) : -1;
        if (c < 0 || (c >= 0xd800 && c < 0xe000))
            return 0;
        nyb_bytes_add_char(out, (uint32_t) c);
        return 2 + digits;
    }
    nyb_bytes_add(out, at, 1); // any other stays as it is
    return 1;
}

static nyb_status scan_text(scanner *s)
{
    const char quote = s->text[s->at];
    nyb_bytes text = {0};
    size_t end = s->at + 1;
    while (end < s->length && s->text[end] != quote) {
        size_t taken = 1;
        if (s->text[end] == '\\')
            taken = put_escape(&text, s->text + end, s->length - end);
        else
            nyb_bytes_add(&text, s->text + end, 1);
        if (taken == 0) {
            nyb_bytes_clear(&text);
            return fault(s, "a string has a wrong escape");
        }
        end += taken;
    }
    nyb_status status = nyb_bytes_status(&text, s->err);
    if (status == NYB_OK && end >= s->length)
        status = fault(s, "a string does not end");
    const nyb_jinja_token token = {
        .kind = JINJA_TEXT,
        .text = nyb_arena_text(s->arena, text.count ? text.at : "", text.count),
        .length = text.count};
    nyb_bytes_clear(&text);
    if (status != NYB_OK)
        return status;
    if (!token.text)
        return nyb_no_memory(s->err, "a string", token.length, 1);
    skip(s, end + 1 - s->at);
    return add(s, token);
}

static nyb_status scan_name(scanner *s)
{
    size_t end = s->at;
    while (end < s->length && (is_letter(s->text[end]) || is_digit(s->text[end])))
        end++;
    const nyb_jinja_token token = {.kind = JINJA_NAME,
                                   .text = nyb_arena_text(s->arena, s->text + s->at, end - s->at),
                                   .length = end - s->at};
    if (!token.text)
        return nyb_no_memory(s->err, "a name", token.length, 1);
    skip(s, end - s->at);
    return add(s, token);
}

static nyb_status scan_operator(scanner *s, size_t *open)
{
    static const char *const operators[] = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ","};
    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        const char *const text = operators[i];
        if (!starts(s, text))
            continue;
        if (strchr("[({", *text))
            (*open)++;
        if (strchr("])}", *text) && *open > 0)
            (*open)--;
        skip(s, strlen(text));
        return add(s,
                   (nyb_jinja_token){.kind = JINJA_OPERATOR, .text = text, .length = strlen(text)});
    }
    return fault(s, "a character that has no meaning in a tag");
}

// From behind "{{" or "{%" to behind the tag's end.
static nyb_status scan_tag(scanner *s, bool block)
{
    const char *const plain = block ? "%}" : "}}";
    const char *const minus = block ? "-%}" : "-}}", *const plus = block ? "+%}" : "+}}";
    size_t open = 0;
    nyb_status status = add(s, (nyb_jinja_token){.kind = block ? JINJA_BLOCK : JINJA_OUTPUT});
    while (status == NYB_OK && s->at < s->length) {
        const char c = s->text[s->at];
        if (is_blank(c)) {
            skip(s, 1);
        } else if (open == 0 && (starts(s, plain) || starts(s, minus) || starts(s, plus))) {
            const bool all = c == '-', keeps = c == '+';
            skip(s, c == *plain ? 2 : 3);
            skip_behind(s, all, block && !keeps);
            return add(s, (nyb_jinja_token){.kind = block ? JINJA_BLOCK_END : JINJA_OUTPUT_END,
                                            .text = plain});
        } else if (c == '\'' || c == '"') {
            status = scan_text(s);
        } else if (is_digit(c)) {
            status = scan_number(s);
        } else if (is_letter(c)) {
            status = scan_name(s);
        } else {
            status = scan_operator(s, &open);
        }
    }
    return status == NYB_OK ? fault(s, "a tag does not end") : status;
}

static nyb_status scan_comment(scanner *s)
{
    while (s->at < s->length && !starts(s, "#}"))
        skip(s, 1);
    if (s->at == s->length)
        return fault(s, "a comment does not end");
    const char before = s->text[s->at - 1];
    skip(s, 2);
    skip_behind(s, before == '-', before != '+');
    return NYB_OK;
}

// One line end for each of CR LF, CR and LF, and none at the end.
static char *copy_source(nyb_arena *arena, const char *text, size_t length, size_t *count)
{
    char *const copy = nyb_arena_alloc(arena, length + 1, 1);
    *count = 0;
    for (size_t i = 0; copy && i < length; i++) {
        if (text[i] == '\r' && i + 1 < length && text[i + 1] == '\n')
            continue;
        copy[(*count)++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (*count > 0 && copy[*count - 1] == '\n')
        (*count)--;
    return copy;
}

nyb_status nyb_jinja_scan(nyb_jinja_tokens *out, nyb_arena *arena, const char *text, size_t length,
                          nyb_err *err)
{
    scanner s = {.out = out, .arena = arena, .line = 1, .line_starts = true, .err = err};
    *out = (nyb_jinja_tokens){0};
    s.text = copy_source(arena, text, length, &s.length);
    if (!s.text)
        return nyb_no_memory(err, "a template", length, 1);
    nyb_status status = NYB_OK;
    while (status == NYB_OK && s.at < s.length) {
        status = scan_data(&s);
        if (status != NYB_OK || s.at == s.length)
            break;
        const char kind = s.text[s.at + 1];
        const size_t sign = s.at + 2 < s.length && strchr("-+", s.text[s.at + 2]) &&
                            s.text[s.at + 2] != '\0' && kind != '#';
        skip(&s, 2 + sign);
        status = kind == '#' ? scan_comment(&s) : scan_tag(&s, kind == '%');
    }
    return status == NYB_OK ? add(&s, (nyb_jinja_token){.kind = JINJA_END}) : status;
}
