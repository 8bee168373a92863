#include "core/json.h"

#include <string.h>

#include "core/arena.h"
#include "core/file.h"

enum { JSON_FILE_LIMIT = 512 << 20 };

nyb_status nyb_json_parse(json_t **out, const char *text, size_t length, const char *name,
                          nyb_err *err)
{
    json_error_t fault;
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
    if (!*out)
        return nyb_fail(err, NYB_E_FORMAT, "%s: not JSON, line %d column %d: %s", name, fault.line,
                        fault.column, fault.text);
    return NYB_OK;
}

nyb_status nyb_json_load(json_t **out, const char *path, nyb_err *err)
{
    nyb_arena arena = {0};
    char *text = NULL;
    size_t length = 0;

    *out = NULL;
    nyb_status status = nyb_file_read(&arena, path, JSON_FILE_LIMIT, &text, &length, err);
    if (status == NYB_OK)
        status = nyb_json_parse(out, text, length, path, err);
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_json_save(const json_t *document, const char *path, nyb_err *err)
{
    char *const text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    if (!text)
        return nyb_fail(err, NYB_E_NOMEM, "%s: no memory for its text", path);
    const size_t length = strlen(text);
    text[length] = '\n'; // in place of the NUL, which the file does not need
    const nyb_status status = nyb_file_write(path, text, length + 1, err);
    free(text);
    return status;
}

static nyb_status wrong(const char *name, const char *key, const char *want, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is not %s", name, key, want);
}

nyb_status nyb_json_size(const json_t *obj, const char *key, size_t *out, const char *name,
                         nyb_err *err)
{
    const json_t *const value = json_object_get(obj, key);
    if (!value || json_is_null(value))
        return NYB_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return wrong(name, key, "a whole number of 0 or more", err);
    *out = (size_t) json_integer_value(value);
    return NYB_OK;
}

nyb_status nyb_json_real(const json_t *obj, const char *key, double *out, const char *name,
                         nyb_err *err)
{
    const json_t *const value = json_object_get(obj, key);
    if (!value || json_is_null(value))
        return NYB_OK;
    if (!json_is_number(value))
        return wrong(name, key, "a number", err);
    *out = json_number_value(value);
    return NYB_OK;
}

nyb_status nyb_json_bool(const json_t *obj, const char *key, bool *out, const char *name,
                         nyb_err *err)
{
    const json_t *const value = json_object_get(obj, key);
    if (!value || json_is_null(value))
        return NYB_OK;
    if (!json_is_boolean(value))
        return wrong(name, key, "true or false", err);
    *out = json_is_true(value);
    return NYB_OK;
}

nyb_status nyb_json_text(const json_t *obj, const char *key, const char **out, const char *name,
                         nyb_err *err)
{
    const json_t *const value = json_object_get(obj, key);
    if (!value || json_is_null(value))
        return NYB_OK;
    if (!json_is_string(value))
        return wrong(name, key, "a string", err);
    *out = json_string_value(value);
    return NYB_OK;
}
