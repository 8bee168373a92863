// What filters and methods do to texts, as Python does it.
#define _GNU_SOURCE // memmem
#include <string.h>

#include "model/jinja_private.h"
#include "model/unicode.h"

// The argument at this place or of this name, or NULL.
const nyb_value *nyb_jinja_argument(const nyb_jinja_arguments *a, size_t place, const char *name)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->names[i] ? strcmp(a->names[i], name) == 0 : i == place)
            return &a->at[i];
    return NULL;
}

nyb_status nyb_jinja_want(nyb_jinja_run *run, const char *name, const nyb_value *v,
                          nyb_value_kind kind)
{
    const nyb_value wanted = {.kind = kind};
    if (v && v->kind == kind)
        return NYB_OK;
    return nyb_fail(run->err, NYB_E_FORMAT, "'%.40s' of %s, want %s", name,
                    v ? nyb_value_name(v) : "nothing", nyb_value_name(&wanted));
}

nyb_status nyb_jinja_keep(nyb_jinja_run *run, nyb_bytes *text, nyb_value *out)
{
    nyb_status status = nyb_bytes_status(text, run->err);
    if (status == NYB_OK)
        status = nyb_jinja_text(run, text->at, text->count, out);
    nyb_bytes_clear(text);
    return status;
}

static bool strips(uint32_t c, const nyb_value *chars)
{
    if (!chars || chars->kind != NYB_VALUE_TEXT) // Python counts the separators 1c to 1f as space
        return nyb_char_is_space(c) || (c >= 0x1c && c <= 0x1f);
    for (size_t at = 0; at < chars->text.length;)
        if (nyb_utf8_next(chars->text.at, &at) == c)
            return true;
    return false;
}

nyb_value nyb_jinja_strip(nyb_value v, const nyb_value *chars, bool left, bool right)
{
    size_t begin = 0, end = v.text.length;
    while (left && begin < end) {
        size_t at = begin;
        if (!strips(nyb_utf8_next(v.text.at, &at), chars))
            break;
        begin = at;
    }
    while (right && end > begin) {
        const size_t last = nyb_utf8_back(v.text.at, end);
        size_t at = last;
        if (!strips(nyb_utf8_next(v.text.at, &at), chars))
            break;
        end = last;
    }
    return nyb_value_text(v.text.at + begin, end - begin);
}

// Letters outside of ASCII would need tables that no template has asked for.
nyb_status nyb_jinja_case(nyb_jinja_run *run, const char *name, nyb_value v,
                          nyb_jinja_case_kind how, nyb_value *out)
{
    nyb_bytes text = {0};
    bool inside = false;
    for (size_t i = 0; i < v.text.length; i++) {
        char c = v.text.at[i];
        const bool small = c >= 'a' && c <= 'z', large = c >= 'A' && c <= 'Z';
        if ((unsigned char) c >= 0x80) {
            nyb_bytes_clear(&text);
            return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                            "'%.40s' of letters outside of ASCII is not supported", name);
        }
        const bool up = how == JINJA_UPPER || (how == JINJA_CAPITALIZED && i == 0) ||
                        (how == JINJA_TITLE && !inside);
        c = (char) (up && small ? c - 32 : !up && large ? c + 32 : c);
        inside = small || large;
        nyb_bytes_add(&text, &c, 1);
    }
    return nyb_jinja_keep(run, &text, out);
}

nyb_status nyb_jinja_replace(nyb_jinja_run *run, nyb_value v, const nyb_jinja_arguments *a,
                             nyb_value *out)
{
    const nyb_value *const from = nyb_jinja_argument(a, 0, "s"), *const to = nyb_jinja_argument(
                                                                     a, 1, "new");
    nyb_status status = nyb_jinja_want(
        run, "replace", from ? from : nyb_jinja_argument(a, 0, "old"), NYB_VALUE_TEXT);
    if (status == NYB_OK)
        status = nyb_jinja_want(run, "replace", to, NYB_VALUE_TEXT);
    if (status == NYB_OK && (a->count > 2 || !from || from->text.length == 0))
        return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                        "'replace' of no text, or with a count, is not supported");
    if (status != NYB_OK)
        return status;
    nyb_bytes text = {0};
    for (size_t at = 0; at < v.text.length;) {
        const char *const found =
            memmem(v.text.at + at, v.text.length - at, from->text.at, from->text.length);
        const size_t end = found ? (size_t) (found - v.text.at) : v.text.length;
        nyb_bytes_add(&text, v.text.at + at, end - at);
        if (found)
            nyb_bytes_add(&text, to->text.at, to->text.length);
        at = found ? end + from->text.length : end;
        if (text.count > run->bytes) {
            nyb_bytes_clear(&text);
            return nyb_jinja_too_much(run);
        }
    }
    return nyb_jinja_keep(run, &text, out);
}

// Parts of a text between separators; without one, its words.
nyb_status nyb_jinja_split(nyb_jinja_run *run, nyb_value v, const nyb_jinja_arguments *a,
                           nyb_value *out)
{
    const nyb_value *const by = nyb_jinja_argument(a, 0, "sep"), *const most = nyb_jinja_argument(
                                                                     a, 1, "maxsplit");
    const bool words = !by || by->kind == NYB_VALUE_NONE;
    if (most && most->kind != NYB_VALUE_INTEGER)
        return nyb_jinja_want(run, "split", most, NYB_VALUE_INTEGER);
    if (!words && (by->kind != NYB_VALUE_TEXT || by->text.length == 0))
        return nyb_fail(run->err, NYB_E_FORMAT, "'split' by %s", nyb_value_name(by));
    if (words && most)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "'split' into words is not supported");
    nyb_value_list *list = NULL;
    nyb_status status = nyb_jinja_list(run, v.text.length + 1, &list);
    if (status != NYB_OK)
        return status;
    list->count = 0;
    int64_t left = most && most->integer >= 0 ? most->integer : INT64_MAX;
    size_t at = 0;
    while (at <= v.text.length) {
        size_t end = v.text.length, behind = v.text.length + 1;
        if (words) {
            const nyb_value rest = nyb_value_text(v.text.at + at, v.text.length - at);
            at += (size_t) (nyb_jinja_strip(rest, NULL, true, false).text.at - rest.text.at);
            for (end = at; end < v.text.length;) {
                behind = end;
                if (strips(nyb_utf8_next(v.text.at, &behind), NULL))
                    break;
                end = behind;
            }
            behind = end == v.text.length ? end + 1 : end;
            if (end == at)
                break;
        } else if (left-- > 0) {
            const char *const found =
                memmem(v.text.at + at, v.text.length - at, by->text.at, by->text.length);
            end = found ? (size_t) (found - v.text.at) : end;
            behind = found ? end + by->text.length : behind;
        }
        list->at[list->count++] = nyb_value_text(v.text.at + at, end - at);
        at = behind;
    }
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    return NYB_OK;
}

bool nyb_jinja_has_end(nyb_value v, const nyb_value *end, bool front)
{
    const size_t length = end->text.length;
    return v.text.length >= length && memcmp(front ? v.text.at : v.text.at + v.text.length - length,
                                             end->text.at, length) == 0;
}
