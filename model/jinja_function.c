// Filters, tests, methods and functions of the template language.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/jinja_private.h"
#include "model/unicode.h"

// ---- Lists and maps -----------------------------------------------------------------------

static nyb_status join(nyb_jinja_run *run, nyb_value v, const nyb_value *between,
                       const nyb_value *attribute, nyb_value *out)
{
    const nyb_value_list *list = NULL;
    nyb_bytes text = {0};
    nyb_status status = nyb_value_members(run, &v, &list);
    for (size_t i = 0; status == NYB_OK && i < list->count; i++) {
        nyb_value member = list->at[i];
        if (attribute)
            status = nyb_jinja_item(run, &list->at[i], attribute, &member);
        if (status == NYB_OK && i > 0 && between)
            status = nyb_value_print(run, between, &text);
        if (status == NYB_OK)
            status = nyb_value_print(run, &member, &text);
    }
    if (status == NYB_OK)
        return nyb_jinja_keep(run, &text, out);
    nyb_bytes_clear(&text);
    return status;
}

static nyb_status items(nyb_jinja_run *run, const char *name, nyb_value v, nyb_value *out)
{
    const bool keys = strcmp(name, "keys") == 0, values = strcmp(name, "values") == 0;
    nyb_value_list *list = NULL;
    nyb_status status = nyb_jinja_want(run, name, &v, NYB_VALUE_MAP);
    if (status == NYB_OK)
        status = nyb_jinja_list(run, v.map->count, &list);
    for (size_t i = 0; status == NYB_OK && i < v.map->count; i++) {
        nyb_value_list *pair = NULL;
        if (keys || values) {
            list->at[i] = keys ? v.map->at[i].key : v.map->at[i].value;
            continue;
        }
        status = nyb_jinja_list(run, 2, &pair);
        if (status != NYB_OK)
            return status;
        pair->at[0] = v.map->at[i].key;
        pair->at[1] = v.map->at[i].value;
        list->at[i] = (nyb_value){.kind = NYB_VALUE_LIST, .list = pair};
    }
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    return status;
}

// selectattr, rejectattr and map(attribute=...).
static nyb_status by_attribute(nyb_jinja_run *run, const char *name, nyb_value v,
                               const nyb_jinja_arguments *a, nyb_value *out)
{
    const bool maps = *name == 'm', rejects = *name == 'r';
    const nyb_value *const attribute =
        maps ? nyb_jinja_argument(a, 9, "attribute") : nyb_jinja_argument(a, 0, "attribute");
    const nyb_value_list *list = NULL;
    nyb_value_list *kept = NULL;
    if (!attribute)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                        "'%.20s' without an attribute is not supported", name);
    nyb_status status = nyb_value_members(run, &v, &list);
    if (status == NYB_OK)
        status = nyb_jinja_list(run, list->count, &kept);
    if (status != NYB_OK)
        return status;
    kept->count = 0;
    for (size_t i = 0; status == NYB_OK && i < list->count; i++) {
        nyb_value member = nyb_value_undefined();
        nyb_jinja_arguments rest = {.count = a->count > 2 ? 1 : 0};
        bool holds = false;
        status = nyb_jinja_item(run, &list->at[i], attribute, &member);
        holds = nyb_value_true(&member);
        if (rest.count)
            rest.at[0] = a->at[2];
        if (status == NYB_OK && !maps && a->count > 1) {
            status = nyb_jinja_want(run, name, &a->at[1], NYB_VALUE_TEXT);
            char test[40] = {0};
            if (status == NYB_OK && a->at[1].text.length < sizeof(test)) {
                memcpy(test, a->at[1].text.at, a->at[1].text.length);
                status = nyb_jinja_test(run, test, &member, &rest, &holds);
            }
        }
        if (maps || holds != rejects)
            kept->at[kept->count++] = maps ? member : list->at[i];
    }
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = kept};
    return status;
}

// ---- JSON ---------------------------------------------------------------------------------

static void put_json_text(nyb_bytes *out, nyb_value v)
{
    nyb_bytes_add(out, "\"", 1);
    for (size_t i = 0; i < v.text.length; i++) {
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
        const char c = v.text.at[i];
        const char *const found = c ? strchr(from, c) : NULL;
        char code[8];
        if (found) {
            const char pair[2] = {'\\', to[found - from]};
            nyb_bytes_add(out, pair, 2);
        } else if ((unsigned char) c < 0x20) {
            (void) snprintf(code, sizeof(code), "\\u%04x", (unsigned) c);
            nyb_bytes_add(out, code, 6);
        } else {
            nyb_bytes_add(out, &c, 1);
        }
    }
    nyb_bytes_add(out, "\"", 1);
}

static nyb_status put_json(nyb_jinja_run *run, nyb_value v, nyb_bytes *out, unsigned depth)
{
    nyb_status status = NYB_OK;
    if (depth > 50 || out->count > run->bytes)
        return nyb_jinja_too_much(run);
    if (v.kind == NYB_VALUE_NONE || v.kind == NYB_VALUE_BOOL) {
        const char *const word = v.kind == NYB_VALUE_NONE ? "null" : v.truth ? "true" : "false";
        nyb_bytes_add(out, word, strlen(word));
    } else if (v.kind == NYB_VALUE_TEXT) {
        put_json_text(out, v);
    } else if (v.kind == NYB_VALUE_LIST) {
        nyb_bytes_add(out, "[", 1);
        for (size_t i = 0; i < v.list->count && status == NYB_OK; i++) {
            nyb_bytes_add(out, ", ", i > 0 ? 2 : 0);
            status = put_json(run, v.list->at[i], out, depth + 1);
        }
        nyb_bytes_add(out, "]", 1);
    } else if (v.kind == NYB_VALUE_MAP) {
        nyb_bytes_add(out, "{", 1);
        for (size_t i = 0; i < v.map->count && status == NYB_OK; i++) {
            nyb_bytes_add(out, ", ", i > 0 ? 2 : 0);
            put_json_text(out, v.map->at[i].key);
            nyb_bytes_add(out, ": ", 2);
            status = put_json(run, v.map->at[i].value, out, depth + 1);
        }
        nyb_bytes_add(out, "}", 1);
    } else if (v.kind == NYB_VALUE_INTEGER || v.kind == NYB_VALUE_REAL) {
        status = nyb_value_print(run, &v, out);
    } else {
        status = nyb_fail(run->err, NYB_E_FORMAT, "'tojson' of what is %s", nyb_value_name(&v));
    }
    return status;
}

static nyb_status to_json(nyb_jinja_run *run, nyb_value v, const nyb_jinja_arguments *a,
                          nyb_value *out)
{
    nyb_bytes text = {0};
    for (size_t i = 0; i < a->count; i++)
        if (a->at[i].kind != NYB_VALUE_NONE && !(a->names[i] && a->at[i].kind == NYB_VALUE_BOOL))
            return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                            "'tojson' with an indent is not supported");
    const nyb_status status = put_json(run, v, &text, 0);
    if (status == NYB_OK)
        return nyb_jinja_keep(run, &text, out);
    nyb_bytes_clear(&text);
    return status;
}

// ---- Filters ------------------------------------------------------------------------------

static nyb_status to_number(nyb_jinja_run *run, nyb_value v, nyb_value *out)
{
    char digits[32] = {0};
    char *end = digits;
    if (v.kind == NYB_VALUE_INTEGER || v.kind == NYB_VALUE_BOOL)
        *out = nyb_value_integer(v.kind == NYB_VALUE_BOOL ? v.truth : v.integer);
    else if (v.kind == NYB_VALUE_TEXT && v.text.length > 0 && v.text.length < sizeof(digits))
        *out = nyb_value_integer(strtoll(memcpy(digits, v.text.at, v.text.length), &end, 10));
    else
        end = NULL;
    if (!end || (v.kind == NYB_VALUE_TEXT && end != digits + v.text.length))
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "'int' of %s is not supported",
                        nyb_value_name(&v));
    return NYB_OK;
}

static nyb_status length_of(nyb_jinja_run *run, nyb_value v, nyb_value *out)
{
    const nyb_value_list *list = NULL;
    int64_t count = 0;
    nyb_status status = NYB_OK;
    if (v.kind == NYB_VALUE_TEXT) {
        for (size_t at = 0; at < v.text.length; count++)
            (void) nyb_utf8_next(v.text.at, &at);
    } else {
        status = nyb_value_members(run, &v, &list);
        count = status == NYB_OK ? (int64_t) list->count : 0;
    }
    *out = nyb_value_integer(count);
    return status;
}

static nyb_status text_filter(nyb_jinja_run *run, const char *name, nyb_value v,
                              const nyb_jinja_arguments *a, nyb_value *out)
{
    nyb_bytes text = {0};
    nyb_status status = nyb_value_print(run, &v, &text); // Jinja's filters take any value
    if (status != NYB_OK)
        return status;
    status = nyb_jinja_keep(run, &text, &v);
    if (status != NYB_OK)
        return status;
    *out = v;
    if (strcmp(name, "trim") == 0)
        *out = nyb_jinja_strip(v, nyb_jinja_argument(a, 0, "chars"), true, true);
    else if (strcmp(name, "upper") == 0)
        return nyb_jinja_case(run, name, v, JINJA_UPPER, out);
    else if (strcmp(name, "lower") == 0)
        return nyb_jinja_case(run, name, v, JINJA_LOWER, out);
    else if (strcmp(name, "capitalize") == 0)
        return nyb_jinja_case(run, name, v, JINJA_CAPITALIZED, out);
    else if (strcmp(name, "title") == 0)
        return nyb_jinja_case(run, name, v, JINJA_TITLE, out);
    else if (strcmp(name, "replace") == 0)
        return nyb_jinja_replace(run, v, a, out);
    return NYB_OK; // string, safe
}

static bool is_any(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

nyb_status nyb_jinja_filter(nyb_jinja_run *run, const char *name, nyb_value v,
                            const nyb_jinja_arguments *a, nyb_value *out)
{
    static const char *const texts[] = {"trim",       "upper", "lower",   "string", "safe",
                                        "capitalize", "title", "replace", NULL};
    static const char *const attributes[] = {"selectattr", "rejectattr", "map", NULL};
    static const nyb_value none = {.kind = NYB_VALUE_TEXT, .text = {"", 0}};
    const nyb_value_list *list = NULL;
    if (is_any(name, texts))
        return text_filter(run, name, v, a, out);
    if (is_any(name, attributes))
        return by_attribute(run, name, v, a, out);
    if (strcmp(name, "length") == 0 || strcmp(name, "count") == 0)
        return length_of(run, v, out);
    if (strcmp(name, "tojson") == 0)
        return to_json(run, v, a, out);
    if (strcmp(name, "items") == 0)
        return items(run, name, v, out);
    if (strcmp(name, "int") == 0)
        return to_number(run, v, out);
    if (strcmp(name, "join") == 0)
        return join(run, v, nyb_jinja_argument(a, 0, "d"), nyb_jinja_argument(a, 1, "attribute"),
                    out);
    if (strcmp(name, "default") == 0 || strcmp(name, "d") == 0) {
        const nyb_value *const other = nyb_jinja_argument(a, 0, "default_value");
        const nyb_value *const truth = nyb_jinja_argument(a, 1, "boolean");
        const bool falls =
            truth && nyb_value_true(truth) ? !nyb_value_true(&v) : v.kind == NYB_VALUE_UNDEFINED;
        *out = falls ? (other ? *other : none) : v;
        return NYB_OK;
    }
    const bool first = strcmp(name, "first") == 0, last = strcmp(name, "last") == 0;
    if (!first && !last && strcmp(name, "list") != 0)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "the filter '%.40s' is not supported", name);
    const nyb_status status = nyb_value_members(run, &v, &list);
    if (status != NYB_OK)
        return status;
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    if (first || last)
        *out = list->count == 0 ? nyb_value_undefined() : list->at[first ? 0 : list->count - 1];
    return NYB_OK;
}

// ---- Tests --------------------------------------------------------------------------------

static bool kind_test(const char *name, nyb_value_kind kind, bool *out)
{
    static const struct {
        const char *name;
        unsigned kinds; // bits of nyb_value_kind
    } tests[] = {
        {"undefined", 1u << NYB_VALUE_UNDEFINED},
        {"none", 1u << NYB_VALUE_NONE},
        {"string", 1u << NYB_VALUE_TEXT},
        {"boolean", 1u << NYB_VALUE_BOOL},
        {"mapping", 1u << NYB_VALUE_MAP},
        {"integer", 1u << NYB_VALUE_INTEGER},
        {"float", 1u << NYB_VALUE_REAL},
        {"number", 1u << NYB_VALUE_INTEGER | 1u << NYB_VALUE_REAL | 1u << NYB_VALUE_BOOL},
        {"sequence", 1u << NYB_VALUE_TEXT | 1u << NYB_VALUE_LIST | 1u << NYB_VALUE_MAP},
        {"iterable", 1u << NYB_VALUE_TEXT | 1u << NYB_VALUE_LIST | 1u << NYB_VALUE_MAP |
                         1u << NYB_VALUE_UNDEFINED},
        {"callable", 1u << NYB_VALUE_MACRO},
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(tests[i].name, name) == 0) {
            *out = tests[i].kinds >> kind & 1;
            return true;
        }
    }
    return false;
}

nyb_status nyb_jinja_test(nyb_jinja_run *run, const char *name, const nyb_value *v,
                          const nyb_jinja_arguments *a, bool *out)
{
    static const char *const equals[] = {"equalto", "eq", "sameas", NULL};
    nyb_value result = nyb_value_bool(false);
    nyb_status status = NYB_OK;
    if (kind_test(name, v->kind, out))
        return NYB_OK;
    if (strcmp(name, "defined") == 0) {
        *out = v->kind != NYB_VALUE_UNDEFINED;
    } else if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0) {
        *out = v->kind == NYB_VALUE_BOOL && v->truth == (*name == 't');
    } else if ((strcmp(name, "odd") == 0 || strcmp(name, "even") == 0)) {
        status = nyb_jinja_want(run, name, v, NYB_VALUE_INTEGER);
        *out = status == NYB_OK && (v->integer % 2 != 0) == (*name == 'o');
    } else if (is_any(name, equals) || strcmp(name, "ne") == 0) {
        if (a->count != 1)
            return nyb_fail(run->err, NYB_E_FORMAT, "the test '%.20s' needs one value", name);
        *out = nyb_value_equal(v, &a->at[0]) == (*name != 'n');
    } else if (strcmp(name, "in") == 0 && a->count == 1) {
        status = nyb_jinja_binary(run, "in", v, &a->at[0], &result);
        *out = result.truth;
    } else {
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "the test '%.40s' is not supported", name);
    }
    return status;
}

// ---- Methods and functions ----------------------------------------------------------------

static nyb_status text_method(nyb_jinja_run *run, const char *name, nyb_value v,
                              const nyb_jinja_arguments *a, nyb_value *out)
{
    const nyb_value *const first = nyb_jinja_argument(a, 0, "chars");
    if (strcmp(name, "strip") == 0)
        *out = nyb_jinja_strip(v, first, true, true);
    else if (strcmp(name, "lstrip") == 0)
        *out = nyb_jinja_strip(v, first, true, false);
    else if (strcmp(name, "rstrip") == 0)
        *out = nyb_jinja_strip(v, first, false, true);
    else if (strcmp(name, "split") == 0)
        return nyb_jinja_split(run, v, a, out);
    else if (strcmp(name, "upper") == 0)
        return nyb_jinja_case(run, name, v, JINJA_UPPER, out);
    else if (strcmp(name, "lower") == 0)
        return nyb_jinja_case(run, name, v, JINJA_LOWER, out);
    else if (strcmp(name, "capitalize") == 0)
        return nyb_jinja_case(run, name, v, JINJA_CAPITALIZED, out);
    else if (strcmp(name, "title") == 0)
        return nyb_jinja_case(run, name, v, JINJA_TITLE, out);
    else if (strcmp(name, "replace") == 0)
        return nyb_jinja_replace(run, v, a, out);
    else if (strcmp(name, "join") == 0 && first)
        return join(run, *first, &v, NULL, out);
    else if (strcmp(name, "startswith") == 0 || strcmp(name, "endswith") == 0) {
        const nyb_status status = nyb_jinja_want(run, name, first, NYB_VALUE_TEXT);
        *out = nyb_value_bool(status == NYB_OK && nyb_jinja_has_end(v, first, *name == 's'));
        return status;
    } else
        return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                        "the method '%.40s' of a string is not supported", name);
    return NYB_OK;
}

nyb_status nyb_jinja_method(nyb_jinja_run *run, const char *name, nyb_value v,
                            const nyb_jinja_arguments *a, nyb_value *out)
{
    static const char *const lists[] = {"items", "keys", "values", NULL};
    if (v.kind == NYB_VALUE_TEXT)
        return text_method(run, name, v, a, out);
    if (v.kind == NYB_VALUE_UNDEFINED)
        return nyb_fail(run->err, NYB_E_FORMAT, "'%.40s' is called of an undefined value", name);
    if (v.kind == NYB_VALUE_MAP && is_any(name, lists))
        return items(run, name, v, out);
    if (v.kind == NYB_VALUE_MAP && strcmp(name, "get") == 0) {
        const nyb_value *const key = nyb_jinja_argument(a, 0, "key"), *const other =
                                                                          nyb_jinja_argument(
                                                                              a, 1, "default");
        nyb_status status = nyb_jinja_want(run, name, key, NYB_VALUE_TEXT);
        if (status == NYB_OK)
            status = nyb_jinja_item(run, &v, key, out);
        if (status == NYB_OK && out->kind == NYB_VALUE_UNDEFINED)
            *out = other ? *other : nyb_value_none();
        return status;
    }
    return nyb_fail(run->err, NYB_E_UNSUPPORTED, "the method '%.40s' of %s is not supported", name,
                    nyb_value_name(&v));
}

// The date is one fixed day, so that the same data gives the same tokens on every day: the day
// that Llama 3's templates fall back on.
static nyb_status fixed_date(nyb_jinja_run *run, const nyb_jinja_arguments *a, nyb_value *out)
{
    static const struct {
        char letter;
        const char *text;
    } parts[] = {{'d', "26"}, {'b', "Jul"}, {'B', "July"},   {'m', "07"}, {'Y', "2024"},
                 {'y', "24"}, {'a', "Fri"}, {'A', "Friday"}, {'H', "00"}, {'M', "00"},
                 {'S', "00"}, {'j', "208"}, {'%', "%"}};
    const nyb_value *const format = nyb_jinja_argument(a, 0, "format");
    nyb_bytes text = {0};
    nyb_status status = nyb_jinja_want(run, "strftime_now", format, NYB_VALUE_TEXT);
    for (size_t i = 0; status == NYB_OK && i < format->text.length; i++) {
        const char *const at = format->text.at + i;
        const char *with = NULL;
        if (*at != '%') {
            nyb_bytes_add(&text, at, 1);
            continue;
        }
        i++;
        for (size_t k = 0; i < format->text.length && k < sizeof(parts) / sizeof(parts[0]); k++)
            with = parts[k].letter == at[1] ? parts[k].text : with;
        if (with)
            nyb_bytes_add(&text, with, strlen(with));
        else
            status = nyb_fail(
                run->err, NYB_E_UNSUPPORTED, "the date format '%.*s' is not supported",
                (int) (format->text.length < 60 ? format->text.length : 60), format->text.at);
    }
    if (status == NYB_OK)
        return nyb_jinja_keep(run, &text, out);
    nyb_bytes_clear(&text);
    return status;
}

static nyb_status make_namespace(nyb_jinja_run *run, bool is_namespace,
                                 const nyb_jinja_arguments *a, nyb_value *out)
{
    nyb_value_map *map = NULL;
    nyb_status status = nyb_jinja_map_new(run, &map);
    for (size_t i = 0; i < a->count && status == NYB_OK; i++) {
        if (!a->names[i])
            return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                            "a namespace of something without a name is not supported");
        status =
            nyb_jinja_map_set(run, map, nyb_value_text(a->names[i], strlen(a->names[i])), a->at[i]);
    }
    if (status == NYB_OK)
        map->is_namespace = is_namespace;
    *out = (nyb_value){.kind = NYB_VALUE_MAP, .map = map};
    return status;
}

static nyb_status range(nyb_jinja_run *run, const nyb_jinja_arguments *a, nyb_value *out)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->at[i].kind != NYB_VALUE_INTEGER)
            return nyb_jinja_want(run, "range", &a->at[i], NYB_VALUE_INTEGER);
    const int64_t begin = a->count > 1 ? a->at[0].integer : 0;
    const int64_t end = a->count > 1 ? a->at[1].integer : a->count ? a->at[0].integer : 0;
    if (a->count == 0 || a->count > 2)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "'range' of %zu values is not supported",
                        a->count);
    int64_t count = 0;
    if (__builtin_sub_overflow(end, begin, &count) || count > 1 << 20)
        return nyb_jinja_too_much(run);
    nyb_value_list *list = NULL;
    const nyb_status status = nyb_jinja_list(run, count > 0 ? (size_t) count : 0, &list);
    for (int64_t i = 0; status == NYB_OK && i < count; i++)
        list->at[i] = nyb_value_integer(begin + i);
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    return status;
}

nyb_status nyb_jinja_function(nyb_jinja_run *run, const char *name, const nyb_jinja_arguments *a,
                              nyb_value *out)
{
    if (strcmp(name, "raise_exception") == 0) {
        const nyb_value *const why = nyb_jinja_argument(a, 0, "message");
        const bool text = why && why->kind == NYB_VALUE_TEXT;
        return nyb_fail(run->err, NYB_E_ARG, "the chat template refuses the messages: %.*s",
                        text ? (int) (why->text.length < 300 ? why->text.length : 300) : 0,
                        text ? why->text.at : "");
    }
    if (strcmp(name, "namespace") == 0 || strcmp(name, "dict") == 0)
        return make_namespace(run, *name == 'n', a, out);
    if (strcmp(name, "range") == 0)
        return range(run, a, out);
    if (strcmp(name, "strftime_now") == 0)
        return fixed_date(run, a, out);
    return nyb_fail(run->err, NYB_E_UNSUPPORTED, "the function '%.40s' is not supported", name);
}
