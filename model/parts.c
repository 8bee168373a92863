#include "model/parts.h"

#include "core/json.h"
#include "model/unicode.h"

enum { DEEPEST = 16 }; // Sequences in Sequences

nyb_status nyb_part_type(const json_t *value, const char *what, const char **type, const char *name,
                         nyb_err *err)
{
    if (!json_is_object(value) || !json_is_string(json_object_get(value, "type")))
        return nyb_fail(err, NYB_E_FORMAT, "%s: a %s is no object with a 'type'", name, what);
    *type = json_string_value(json_object_get(value, "type"));
    return NYB_OK;
}

static nyb_status each(const json_t *value, const char *members, const nyb_part *part,
                       nyb_part_loader *load, unsigned depth, nyb_err *err)
{
    const char *type = NULL;
    nyb_status status = nyb_part_type(value, members, &type, part->name, err);
    if (status != NYB_OK)
        return status;
    if (strcmp(type, "Sequence") != 0)
        return load(part, value, err);

    const json_t *const list = json_object_get(value, members);
    if (!json_is_array(list))
        return nyb_fail(err, NYB_E_FORMAT, "%s: a Sequence has no list '%s'", part->name, members);
    if (depth == DEEPEST)
        return nyb_fail(err, NYB_E_FORMAT, "%s: Sequences of '%s' are more than %d deep",
                        part->name, members, DEEPEST);
    for (size_t i = 0; i < json_array_size(list) && status == NYB_OK; i++)
        status = each(json_array_get(list, i), members, part, load, depth + 1, err);
    return status;
}

nyb_status nyb_part_each(const json_t *value, const char *members, const nyb_part *part,
                         nyb_part_loader *load, nyb_err *err)
{
    if (!value || json_is_null(value))
        return NYB_OK;
    return each(value, members, part, load, 0, err);
}

nyb_status nyb_part_text(const json_t *value, const char *key, nyb_arena *arena, const char **text,
                         size_t *length, const char *name, nyb_err *err)
{
    const json_t *const found = json_object_get(value, key);
    if (!json_is_string(found))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' of a tokenizer's part is not a string", name,
                        key);
    *length = json_string_length(found);
    *text = nyb_arena_text(arena, json_string_value(found), *length);
    return *text ? NYB_OK : nyb_no_memory(err, key, *length, 1);
}

nyb_status nyb_part_char(const json_t *value, const char *key, nyb_arena *arena, const char **text,
                         size_t *length, const char *name, nyb_err *err)
{
    const nyb_status status = nyb_part_text(value, key, arena, text, length, name, err);
    if (status != NYB_OK)
        return status;
    size_t first = 0;
    if (*length > 0)
        (void) nyb_utf8_next(*text, &first);
    if (*length == 0 || first != *length)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is not one character", name, key);
    return NYB_OK;
}

nyb_status nyb_part_pattern(const json_t *value, nyb_pattern **out, const char *name, nyb_err *err)
{
    const json_t *const pattern = json_object_get(value, "pattern");
    const json_t *const text = json_object_get(pattern, "String");
    const json_t *const regex = json_object_get(pattern, "Regex");
    nyb_err why = {0};
    nyb_status status = NYB_OK;
    *out = NULL;
    if (json_is_string(text))
        status = nyb_pattern_text(out, json_string_value(text), json_string_length(text), &why);
    else if (json_is_string(regex))
        status = nyb_pattern_regex(out, json_string_value(regex), json_string_length(regex), &why);
    else
        return nyb_fail(err, NYB_E_FORMAT, "%s: a pattern has neither 'String' nor 'Regex'", name);
    return status == NYB_OK ? status : nyb_fail(err, status, "%s: %.900s", name, why.text);
}

nyb_status nyb_part_replace(const nyb_pattern *pattern, const char *with, size_t with_length,
                            const char *text, size_t length, nyb_bytes *out, nyb_pieces *pieces,
                            nyb_err *err)
{
    pieces->found.count = 0;
    const nyb_status status = nyb_find_pattern(pattern, pieces, text, length, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < pieces->found.count; i++) {
        const nyb_range at = pieces->found.at[i];
        if (at.flag)
            nyb_bytes_add(out, with, with_length);
        else
            nyb_bytes_add(out, text + at.begin, at.end - at.begin);
    }
    return NYB_OK;
}
