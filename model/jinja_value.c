// Values of the template language: making, comparing and printing them.
#include <stdio.h>
#include <string.h>

#include "model/jinja_private.h"
#include "model/unicode.h"

nyb_status nyb_jinja_too_much(nyb_jinja_run *run)
{
    return nyb_fail(run->err, NYB_E_NUMERIC,
                    "the template takes too much: it runs in circles, or its text is too long");
}

void *nyb_jinja_alloc(nyb_jinja_run *run, size_t count, size_t size)
{
    size_t bytes = 0;
    if (!nyb_mul_size(count, size, &bytes) || run->bytes < NYB_ALIGN ||
        bytes > run->bytes - NYB_ALIGN)
        return NULL;
    run->bytes -= bytes + NYB_ALIGN; // small blocks take that much room
    return nyb_arena_alloc(&run->arena, bytes + 1, 1);
}

nyb_status nyb_jinja_text(nyb_jinja_run *run, const char *at, size_t length, nyb_value *out)
{
    char *const copy = nyb_jinja_alloc(run, length, 1);
    if (!copy)
        return nyb_jinja_too_much(run);
    if (length > 0)
        memcpy(copy, at, length);
    *out = nyb_value_text(copy, length);
    return NYB_OK;
}

nyb_status nyb_jinja_list(nyb_jinja_run *run, size_t count, nyb_value_list **out)
{
    nyb_value_list *const list = nyb_jinja_alloc(run, 1, sizeof(*list));
    nyb_value *const at = nyb_jinja_alloc(run, count, sizeof(*at));
    if (!list || !at)
        return nyb_jinja_too_much(run);
    *list = (nyb_value_list){.count = count, .at = at};
    for (size_t i = 0; i < count; i++)
        at[i] = nyb_value_undefined();
    *out = list;
    return NYB_OK;
}

nyb_status nyb_jinja_map_new(nyb_jinja_run *run, nyb_value_map **out)
{
    *out = nyb_jinja_alloc(run, 1, sizeof(**out));
    if (!*out)
        return nyb_jinja_too_much(run);
    **out = (nyb_value_map){0};
    return NYB_OK;
}

const nyb_value *nyb_value_find(const nyb_value_map *map, const char *key, size_t length)
{
    for (size_t i = 0; i < map->count; i++) {
        const nyb_value *const k = &map->at[i].key;
        if (k->kind == NYB_VALUE_TEXT && k->text.length == length &&
            memcmp(k->text.at, key, length) == 0)
            return &map->at[i].value;
    }
    return NULL;
}

nyb_status nyb_jinja_map_set(nyb_jinja_run *run, nyb_value_map *map, nyb_value key, nyb_value value)
{
    if (key.kind != NYB_VALUE_TEXT)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "a map's key that is %s is not supported",
                        nyb_value_name(&key));
    for (size_t i = 0; i < map->count; i++) {
        if (nyb_value_equal(&map->at[i].key, &key)) {
            map->at[i].value = value;
            return NYB_OK;
        }
    }
    if (map->count == map->room) {
        const size_t room = map->room ? 2 * map->room : 8;
        nyb_value_entry *const at = nyb_jinja_alloc(run, room, sizeof(*at));
        if (!at)
            return nyb_jinja_too_much(run);
        if (map->count > 0)
            memcpy(at, map->at, map->count * sizeof(*at));
        map->at = at;
        map->room = room;
    }
    map->at[map->count++] = (nyb_value_entry){.key = key, .value = value};
    return NYB_OK;
}

const char *nyb_value_name(const nyb_value *v)
{
    static const char *const names[] = {
        [NYB_VALUE_UNDEFINED] = "undefined", [NYB_VALUE_NONE] = "none",
        [NYB_VALUE_BOOL] = "a boolean",      [NYB_VALUE_INTEGER] = "a whole number",
        [NYB_VALUE_REAL] = "a number",       [NYB_VALUE_TEXT] = "a string",
        [NYB_VALUE_LIST] = "a list",         [NYB_VALUE_MAP] = "a map",
        [NYB_VALUE_MACRO] = "a macro"};
    return names[v->kind];
}

bool nyb_value_true(const nyb_value *v)
{
    switch (v->kind) {
    case NYB_VALUE_UNDEFINED:
    case NYB_VALUE_NONE:
        return false;
    case NYB_VALUE_BOOL:
        return v->truth;
    case NYB_VALUE_INTEGER:
        return v->integer != 0;
    case NYB_VALUE_REAL:
        return v->real != 0.0;
    case NYB_VALUE_TEXT:
        return v->text.length > 0;
    case NYB_VALUE_LIST:
        return v->list->count > 0;
    case NYB_VALUE_MAP:
        return v->map->is_namespace || v->map->count > 0;
    case NYB_VALUE_MACRO:
        break;
    }
    return true;
}

// As a number, where the value is one; a boolean is 0 or 1.
static bool number_of(const nyb_value *v, double *out)
{
    *out = v->kind == NYB_VALUE_BOOL      ? v->truth
           : v->kind == NYB_VALUE_INTEGER ? (double) v->integer
           : v->kind == NYB_VALUE_REAL    ? v->real
                                          : 0.0;
    return v->kind == NYB_VALUE_BOOL || v->kind == NYB_VALUE_INTEGER || v->kind == NYB_VALUE_REAL;
}

static bool lists_equal(const nyb_value_list *a, const nyb_value_list *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!nyb_value_equal(&a->at[i], &b->at[i]))
            return false;
    return true;
}

static bool maps_equal(const nyb_value_map *a, const nyb_value_map *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const nyb_value *const k = &a->at[i].key;
        const nyb_value *const other = nyb_value_find(b, k->text.at, k->text.length);
        if (!other || !nyb_value_equal(&a->at[i].value, other))
            return false;
    }
    return true;
}

bool nyb_value_equal(const nyb_value *a, const nyb_value *b)
{
    double x = 0.0, y = 0.0;
    if (a->kind == NYB_VALUE_INTEGER && b->kind == NYB_VALUE_INTEGER)
        return a->integer == b->integer;
    if (number_of(a, &x) && number_of(b, &y))
        return x == y;
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case NYB_VALUE_TEXT:
        return a->text.length == b->text.length &&
               memcmp(a->text.at, b->text.at, a->text.length) == 0;
    case NYB_VALUE_LIST:
        return lists_equal(a->list, b->list);
    case NYB_VALUE_MAP:
        return a->map == b->map || (!a->map->is_namespace && maps_equal(a->map, b->map));
    case NYB_VALUE_MACRO:
        return a->macro == b->macro;
    default:
        return true; // undefined, none
    }
}

bool nyb_value_is(const nyb_value *v, const char *text)
{
    const nyb_value other = nyb_value_text(text, strlen(text));
    return v->kind == NYB_VALUE_TEXT && nyb_value_equal(v, &other);
}

// The shortest digits that read back as the same number, as Python prints it.
static void print_real(double real, nyb_bytes *out)
{
    char text[40];
    int digits = 1;
    double back = 0.0;
    do {
        (void) snprintf(text, sizeof(text), "%.*g", digits++, real);
        (void) sscanf(text, "%lf", &back);
    } while (back != real && digits <= 17);
    nyb_bytes_add(out, text, strlen(text));
    if (!strpbrk(text, ".eni")) // inf, nan
        nyb_bytes_add(out, ".0", 2);
}

nyb_status nyb_value_print(nyb_jinja_run *run, const nyb_value *v, nyb_bytes *out)
{
    char digits[24];
    switch (v->kind) {
    case NYB_VALUE_UNDEFINED:
        break;
    case NYB_VALUE_NONE:
        nyb_bytes_add(out, "None", 4);
        break;
    case NYB_VALUE_BOOL:
        nyb_bytes_add(out, v->truth ? "True" : "False", v->truth ? 4 : 5);
        break;
    case NYB_VALUE_INTEGER:
        (void) snprintf(digits, sizeof(digits), "%lld", (long long) v->integer);
        nyb_bytes_add(out, digits, strlen(digits));
        break;
    case NYB_VALUE_REAL:
        print_real(v->real, out);
        break;
    case NYB_VALUE_TEXT:
        if (v->text.length > run->bytes)
            return nyb_jinja_too_much(run);
        run->bytes -= v->text.length;
        nyb_bytes_add(out, v->text.at, v->text.length);
        break;
    default:
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "printing %s is not supported",
                        nyb_value_name(v));
    }
    return NYB_OK;
}

static nyb_status characters(nyb_jinja_run *run, const nyb_value *v, const nyb_value_list **out)
{
    size_t count = 0;
    for (size_t at = 0; at < v->text.length; count++)
        (void) nyb_utf8_next(v->text.at, &at);
    nyb_value_list *list = NULL;
    const nyb_status status = nyb_jinja_list(run, count, &list);
    if (status != NYB_OK)
        return status;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t begin = at;
        (void) nyb_utf8_next(v->text.at, &at);
        list->at[i] = nyb_value_text(v->text.at + begin, at - begin);
    }
    *out = list;
    return NYB_OK;
}

nyb_status nyb_value_members(nyb_jinja_run *run, const nyb_value *v, const nyb_value_list **out)
{
    nyb_value_list *list = NULL;
    if (v->kind == NYB_VALUE_LIST) {
        *out = v->list;
        return NYB_OK;
    }
    if (v->kind == NYB_VALUE_TEXT)
        return characters(run, v, out);
    if (v->kind != NYB_VALUE_UNDEFINED && v->kind != NYB_VALUE_MAP)
        return nyb_fail(run->err, NYB_E_FORMAT, "%s has no members to go through",
                        nyb_value_name(v));
    const size_t count = v->kind == NYB_VALUE_MAP ? v->map->count : 0;
    const nyb_status status = nyb_jinja_list(run, count, &list);
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        list->at[i] = v->map->at[i].key;
    *out = list;
    return status;
}

static nyb_status list_of_json(nyb_jinja_run *run, const json_t *json, nyb_value *out)
{
    nyb_value_list *list = NULL;
    nyb_status status = nyb_jinja_list(run, json_array_size(json), &list);
    for (size_t i = 0; i < json_array_size(json) && status == NYB_OK; i++)
        status = nyb_value_of_json(run, json_array_get(json, i), &list->at[i]);
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    return status;
}

static nyb_status map_of_json(nyb_jinja_run *run, const json_t *json, nyb_value *out)
{
    nyb_value_map *map = NULL;
    const char *key = NULL;
    json_t *value = NULL;
    nyb_status status = nyb_jinja_map_new(run, &map);
    json_object_foreach((json_t *) (uintptr_t) json, key, value)
    {
        nyb_value member = nyb_value_undefined(), name = nyb_value_undefined();
        if (status == NYB_OK)
            status = nyb_value_of_json(run, value, &member);
        if (status == NYB_OK)
            status = nyb_jinja_text(run, key, strlen(key), &name);
        if (status == NYB_OK)
            status = nyb_jinja_map_set(run, map, name, member);
    }
    *out = (nyb_value){.kind = NYB_VALUE_MAP, .map = map};
    return status;
}

nyb_status nyb_value_of_json(nyb_jinja_run *run, const json_t *json, nyb_value *out)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return map_of_json(run, json, out);
    case JSON_ARRAY:
        return list_of_json(run, json, out);
    case JSON_STRING:
        *out = nyb_value_text(json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        *out = nyb_value_integer(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = (nyb_value){.kind = NYB_VALUE_REAL, .real = json_real_value(json)};
        break;
    case JSON_NULL:
        *out = nyb_value_none();
        break;
    default:
        *out = nyb_value_bool(json_is_true(json));
        break;
    }
    return NYB_OK;
}
