// Oniguruma's expressions as tokenizer files use them, in PCRE2's syntax (compiled with UTF, UCP
// and MULTILINE). What means the same in both is copied; what differs is rewritten:
//   \s \w \h \v \uHHHH   other characters, or other syntax, in PCRE2
//   \p{Script}           PCRE2 means the script's extensions too
//   (?m)                 the dot matches newlines, PCRE2's (?s)
//   {n,m}+               a repetition of the repetition, not a possessive one
//   [a[bc]]  [a&&[^b]]   sets in sets
// and what has no such translation is refused by name.
#include "model/pattern.h"

#include <stdio.h>

enum { GROUPS = 64, SETS = 8 };

#define WORD_SET "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

typedef struct translation {
    nyb_bytes *out;
    const char *text;
    size_t length, at;
    size_t atom;           // where the last atom starts in out
    size_t groups[GROUPS]; // where each open group starts in out
    size_t depth;
} translation;

static void put(translation *t, const char *text)
{
    nyb_bytes_add(t->out, text, strlen(text));
}

static nyb_status refuse(const translation *t, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_UNSUPPORTED, "pattern '%.*s' uses %s at byte %zu",
                    (int) (t->length < 200 ? t->length : 200), t->text, what, t->at);
}

// The character `ahead` places on; 0 behind the end.
static char peek(const translation *t, size_t ahead)
{
    return t->at + ahead < t->length ? t->text[t->at + ahead] : '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

typedef struct name_pair {
    const char *from, *to;
} name_pair;

// Properties by what Oniguruma calls them, without spaces, '_', '-' and case.
static const char *property(const char *name)
{
    static const name_pair names[] = {
        {"letter", "L"},
        {"uppercaseletter", "Lu"},
        {"lowercaseletter", "Ll"},
        {"titlecaseletter", "Lt"},
        {"modifierletter", "Lm"},
        {"otherletter", "Lo"},
        {"mark", "M"},
        {"nonspacingmark", "Mn"},
        {"spacingmark", "Mc"},
        {"enclosingmark", "Me"},
        {"number", "N"},
        {"decimalnumber", "Nd"},
        {"letternumber", "Nl"},
        {"othernumber", "No"},
        {"punctuation", "P"},
        {"connectorpunctuation", "Pc"},
        {"dashpunctuation", "Pd"},
        {"openpunctuation", "Ps"},
        {"closepunctuation", "Pe"},
        {"initialpunctuation", "Pi"},
        {"finalpunctuation", "Pf"},
        {"otherpunctuation", "Po"},
        {"symbol", "S"},
        {"mathsymbol", "Sm"},
        {"currencysymbol", "Sc"},
        {"modifiersymbol", "Sk"},
        {"othersymbol", "So"},
        {"separator", "Z"},
        {"spaceseparator", "Zs"},
        {"lineseparator", "Zl"},
        {"paragraphseparator", "Zp"},
        {"other", "C"},
        {"control", "Cc"},
        {"format", "Cf"},
        {"surrogate", "Cs"},
        {"privateuse", "Co"},
        {"unassigned", "Cn"},
        {"any", "Any"},
        {"alpha", "Alphabetic"},
        {"alphabetic", "Alphabetic"},
        {"digit", "Nd"},
        {"space", "White_Space"},
        {"whitespace", "White_Space"},
        {"upper", "Uppercase"},
        {"uppercase", "Uppercase"},
        {"lower", "Lowercase"},
        {"lowercase", "Lowercase"},
        {"emoji", "Emoji"},
        {"extendedpictographic", "Extended_Pictographic"},
        {"ideographic", "Ideographic"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].from, name) == 0)
            return names[i].to;
    return NULL;
}

// \p{...} or \P{...}; `at` is on the p.
static nyb_status property_class(translation *t, nyb_err *err)
{
    enum { NAME = 48 };
    const char sense = peek(t, 0);
    char name[NAME] = {0}, plain[NAME] = {0};
    size_t count = 0, letters = 0, at = t->at + 1;
    bool negated = sense == 'P';

    if (at < t->length && t->text[at] != '{') {
        t->at = at;
        return refuse(t, "a property without braces", err);
    }
    at++;
    if (at < t->length && t->text[at] == '^') {
        negated = !negated;
        at++;
    }
    for (; at < t->length && t->text[at] != '}' && count + 1 < NAME; at++) {
        const char c = t->text[at];
        name[count++] = c;
        if (is_letter(c) || is_digit(c))
            plain[letters++] = (char) (c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        else if (c != '_' && c != ' ' && c != '-')
            return refuse(t, "a property with an odd name", err);
    }
    if (at >= t->length || t->text[at] != '}' || letters == 0)
        return refuse(t, "a property without a name", err);
    t->at = at + 1;

    const char *const known = property(plain);
    put(t, negated ? "\\P{" : "\\p{");
    if (!known && letters > 2)
        put(t, "sc:"); // what is left are scripts
    put(t, known ? known : name);
    put(t, "}");
    return NYB_OK;
}

// \uHHHH; `at` is on the u.
static nyb_status code_point(translation *t, nyb_err *err)
{
    for (size_t i = 1; i <= 4; i++)
        if (!is_hex(peek(t, i)))
            return refuse(t, "a short \\u", err);
    put(t, "\\x{");
    nyb_bytes_add(t->out, t->text + t->at + 1, 4);
    put(t, "}");
    t->at += 5;
    return NYB_OK;
}

static nyb_status unknown_escape(const translation *t, char c, nyb_err *err)
{
    char what[] = "'\\?'";
    what[2] = c;
    return refuse(t, what, err);
}

// An escape that means the same inside and outside a set, `at` on the character behind the '\'.
// *done is false when it is none.
static nyb_status common_escape(translation *t, bool *done, nyb_err *err)
{
    static const name_pair simple[] = {
        {"s", "\\p{White_Space}"},
        {"S", "\\P{White_Space}"},
        {"v", "\\x0b"},
        {"d", "\\p{Nd}"},
        {"D", "\\P{Nd}"},
        {"n", "\\n"},
        {"r", "\\r"},
        {"t", "\\t"},
        {"f", "\\f"},
        {"a", "\\a"},
        {"e", "\\e"},
    };
    const char c = peek(t, 0);
    *done = true;
    for (size_t i = 0; i < sizeof(simple) / sizeof(simple[0]); i++) {
        if (simple[i].from[0] == c) {
            put(t, simple[i].to);
            t->at++;
            return NYB_OK;
        }
    }
    if (c == 'p' || c == 'P')
        return property_class(t, err);
    if (c == 'u')
        return code_point(t, err);
    if (c == 'x' && (peek(t, 1) == '{' || (is_digit(peek(t, 1)) && peek(t, 1) < '8'))) {
        put(t, "\\x");
        t->at++;
        return NYB_OK; // its digits are copied like any text
    }
    if (c != '\0' && !is_letter(c) && !is_digit(c)) { // a sign, or a byte of one
        const char escaped[] = {'\\', c};
        nyb_bytes_add(t->out, escaped, (unsigned char) c < 0x80 ? 2 : 0);
        if ((unsigned char) c >= 0x80)
            nyb_bytes_add(t->out, &c, 1);
        t->at++;
        return NYB_OK;
    }
    *done = false;
    return NYB_OK;
}

static nyb_status escape(translation *t, nyb_err *err)
{
    static const name_pair outside[] = {
        {"w", "[" WORD_SET "]"},
        {"W", "[^" WORD_SET "]"},
        {"h", "[0-9A-Fa-f]"},
        {"H", "[^0-9A-Fa-f]"},
        {"b", "(?:(?<=[" WORD_SET "])(?![" WORD_SET "])|(?<![" WORD_SET "])(?=[" WORD_SET "]))"},
        {"A", "\\A"},
        {"z", "\\z"},
        {"Z", "\\Z"},
    };
    bool done = false;
    t->atom = t->out->count;
    t->at++;
    const nyb_status status = common_escape(t, &done, err);
    if (status != NYB_OK || done)
        return status;
    const char c = peek(t, 0);
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        if (outside[i].from[0] == c) {
            put(t, outside[i].to);
            t->at++;
            return NYB_OK;
        }
    }
    return unknown_escape(t, c, err);
}

static nyb_status escape_in_set(translation *t, nyb_err *err)
{
    bool done = false;
    t->at++;
    const nyb_status status = common_escape(t, &done, err);
    if (status != NYB_OK || done)
        return status;
    const char c = peek(t, 0);
    if (c == 'w')
        put(t, WORD_SET);
    else if (c == 'h')
        put(t, "0-9A-Fa-f");
    else if (c == 'b')
        put(t, "\\x08");
    else
        return unknown_escape(t, c, err);
    t->at++;
    return NYB_OK;
}

// [:name:] inside a set.
static nyb_status posix_set(translation *t, nyb_err *err)
{
    static const name_pair sets[] = {
        {"[:alpha:]", "\\p{Alphabetic}"},
        {"[:digit:]", "\\p{Nd}"},
        {"[:space:]", "\\p{White_Space}"},
        {"[:upper:]", "\\p{Uppercase}"},
        {"[:lower:]", "\\p{Lowercase}"},
        {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"},
        {"[:word:]", WORD_SET},
        {"[:cntrl:]", "\\p{Cc}"},
        {"[:xdigit:]", "0-9A-Fa-f"},
    };
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        const size_t length = strlen(sets[i].from);
        if (t->length - t->at >= length && memcmp(t->text + t->at, sets[i].from, length) == 0) {
            put(t, sets[i].to);
            t->at += length;
            return NYB_OK;
        }
    }
    return refuse(t, "a named set that nybble does not have", err);
}

// The members of a set up to its ']' or '&&', without brackets. Sets in it become members.
static nyb_status set_members(translation *t, size_t nested, nyb_err *err)
{
    nyb_status status = NYB_OK;
    bool first = true;
    for (; t->at < t->length && status == NYB_OK; first = false) {
        const char c = peek(t, 0);
        if ((c == ']' && !first) || (c == '&' && peek(t, 1) == '&'))
            return NYB_OK;
        if (c == '\\') {
            status = escape_in_set(t, err);
        } else if (c == '[' && peek(t, 1) == ':') {
            status = posix_set(t, err);
        } else if (c == '[') {
            if (peek(t, 1) == '^' || nested == SETS)
                return refuse(t, "a negated set in a set", err);
            t->at++;
            status = set_members(t, nested + 1, err);
            if (status == NYB_OK && peek(t, 0) == '&')
                return refuse(t, "an intersection in a set in a set", err);
            t->at++;
        } else {
            if (c == ']')
                put(t, "\\");
            nyb_bytes_add(t->out, &c, 1);
            t->at++;
        }
    }
    return status;
}

// [...], and [a&&[b]] as (?:(?=[a])[b]).
static nyb_status set(translation *t, nyb_err *err)
{
    const size_t begin = t->out->count;
    nyb_bytes part = {0}, whole = {0};
    nyb_bytes *const out = t->out;
    nyb_status status = NYB_OK;
    bool several = false, more = true;

    t->atom = begin;
    t->at++;
    const bool negated = peek(t, 0) == '^';
    t->at += negated;
    while (more && status == NYB_OK) {
        // After && a single set in brackets may be negated.
        const bool bracket = several && peek(t, 0) == '[' && peek(t, 1) != ':';
        const bool inner = bracket && peek(t, 1) == '^';
        t->at += (size_t) bracket + (size_t) inner;
        t->out = &part;
        status = set_members(t, 0, err);
        t->out = out;
        if (status == NYB_OK && bracket) {
            t->at++;
            if (peek(t, 0) != ']' && peek(t, 0) != '&')
                status = refuse(t, "an intersection of this form", err);
        }
        more = peek(t, 0) == '&';
        if (more && negated)
            status = refuse(t, "a negated intersection", err);
        nyb_bytes_add(&whole, "(?=[", more ? 4 : 0);
        nyb_bytes_add(&whole, "[", more ? 0 : 1);
        nyb_bytes_add(&whole, "^", negated || inner);
        nyb_bytes_add(&whole, part.at, part.count);
        nyb_bytes_add(&whole, "])", more ? 2 : 1);
        nyb_bytes_reset(&part);
        t->at += more ? 2 : 0;
        several = several || more;
    }
    if (status == NYB_OK && peek(t, 0) != ']')
        status = refuse(t, "a set without its end", err);
    t->at++;
    put(t, several ? "(?:" : "");
    nyb_bytes_add(t->out, whole.at, whole.count);
    put(t, several ? ")" : "");
    t->out->failed = t->out->failed || part.failed || whole.failed;
    nyb_bytes_clear(&part);
    nyb_bytes_clear(&whole);
    return status;
}

// What follows "(?" when it is option letters: (?i) or (?i:
static nyb_status options(translation *t, nyb_err *err)
{
    while (peek(t, 0) == 'i' || peek(t, 0) == 'm' || peek(t, 0) == 'x' || peek(t, 0) == '-') {
        const char c = peek(t, 0) == 'm' ? 's' : peek(t, 0);
        nyb_bytes_add(t->out, &c, 1);
        t->at++;
    }
    if (peek(t, 0) == ':') {
        put(t, ":");
        t->at++;
        return NYB_OK;
    }
    // In the middle (?i) would reach over the alternatives behind it, differently in each.
    if (peek(t, 0) != ')' || t->depth != 1 || t->groups[0] != 0)
        return refuse(t, "an option that is not at the start", err);
    put(t, ")");
    t->at++;
    t->depth = 0;
    return NYB_OK;
}

static nyb_status open_group(translation *t, nyb_err *err)
{
    if (t->depth == GROUPS)
        return refuse(t, "too many groups in groups", err);
    if (peek(t, 1) == '*')
        return refuse(t, "'(*'", err);
    t->groups[t->depth++] = t->out->count;
    put(t, "(");
    t->at++;
    if (peek(t, 0) != '?')
        return NYB_OK;

    put(t, "?");
    t->at++;
    const char c = peek(t, 0);
    if (c == ':' || c == '=' || c == '!' || c == '>' ||
        (c == '<' && (peek(t, 1) == '=' || peek(t, 1) == '!'))) {
        const size_t count = c == '<' ? 2 : 1;
        nyb_bytes_add(t->out, t->text + t->at, count);
        t->at += count;
        return NYB_OK;
    }
    if (c == 'i' || c == 'm' || c == 'x' || c == '-')
        return options(t, err);
    return refuse(t, "a kind of group that nybble does not have", err);
}

static nyb_status close_group(translation *t, nyb_err *err)
{
    if (t->depth == 0)
        return refuse(t, "')' without '('", err);
    t->atom = t->groups[--t->depth];
    put(t, ")");
    t->at++;
    return NYB_OK;
}

// Puts "(?:" before the last atom and ")" behind it.
static void wrap_atom(translation *t)
{
    static const char open[] = "(?:";
    const size_t tail = t->out->count - t->atom;
    put(t, open);
    if (t->out->failed)
        return;
    char *const at = t->out->at + t->atom;
    memmove(at + 3, at, tail);
    memcpy(at, open, 3);
    put(t, ")");
}

// {n}, {n,}, {n,m}, {,m}. Any other brace is a character.
static void braces(translation *t)
{
    size_t i = 1, digits = 0;
    bool comma = false;
    for (; is_digit(peek(t, i)) || (peek(t, i) == ',' && !comma); i++) {
        comma = comma || peek(t, i) == ',';
        digits += is_digit(peek(t, i));
    }
    if (peek(t, i) != '}' || digits == 0) {
        t->atom = t->out->count;
        put(t, "\\{");
        t->at++;
        return;
    }
    put(t, peek(t, 1) == ',' ? "{0" : "{");
    nyb_bytes_add(t->out, t->text + t->at + 1, i);
    t->at += i + 1;
    if (peek(t, 0) == '+')
        wrap_atom(t);
}

static nyb_status translate_one(translation *t, nyb_err *err)
{
    const char c = peek(t, 0);
    switch (c) {
    case '\\':
        return escape(t, err);
    case '[':
        return set(t, err);
    case '(':
        return open_group(t, err);
    case ')':
        return close_group(t, err);
    case '{':
        braces(t);
        return NYB_OK;
    case '\0':
        put(t, "\\x00");
        t->at++;
        return NYB_OK;
    default:
        break;
    }
    // Quantifiers belong to the atom before them, the rest of a character to its first byte.
    if (!strchr("*+?", c) && ((unsigned char) c & 0xc0) != 0x80)
        t->atom = t->out->count;
    nyb_bytes_add(t->out, &c, 1);
    t->at++;
    return NYB_OK;
}

nyb_status nyb_pattern_translate(nyb_bytes *out, const char *text, size_t length, nyb_err *err)
{
    translation t = {.out = out, .text = text, .length = length};
    nyb_status status = NYB_OK;
    while (t.at < length && status == NYB_OK)
        status = translate_one(&t, err);
    if (status == NYB_OK && t.depth > 0)
        status = refuse(&t, "'(' without ')'", err);
    return status;
}
