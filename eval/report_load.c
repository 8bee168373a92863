#include "eval/report_data.h"

#include <string.h>

#include "core/file.h"
#include "core/json.h"

enum { FILE_LIMIT = 256 << 20 };

nyb_status nyb_report_add(nyb_report_data *data, json_t *record, const char *source, nyb_err *err)
{
    if (!data->records)
        data->records = json_array();
    if (!data->sources)
        data->sources = json_array();
    const bool kept = json_array_append_new(data->records, record) == 0 &&
                      json_array_append_new(data->sources, json_string_nocheck(source)) == 0;
    return kept ? NYB_OK : nyb_no_memory(err, "records", 1, 1);
}

// JSON lines have a whole object on their first line.
static bool is_lines(const char *text, size_t length)
{
    const char *const stop = memchr(text, '\n', length);
    size_t end = stop ? (size_t) (stop - text) : length;
    while (end > 0 && strchr(" \t\r", text[end - 1]) && text[end - 1])
        end--;
    return end > 1 && text[0] == '{' && text[end - 1] == '}';
}

nyb_status nyb_report_load_lines(nyb_report_data *data, const char *path, const char *text,
                                 size_t length, nyb_err *err)
{
    size_t line = 1;
    for (size_t at = 0; at < length; line++) {
        const char *const stop = memchr(text + at, '\n', length - at);
        const size_t end = stop ? (size_t) (stop - text) : length;
        size_t blank = 0;
        while (at + blank < end && strchr(" \t\r", text[at + blank]) && text[at + blank])
            blank++;
        const char *const source = nyb_arena_format(&data->arena, "%s, line %zu", path, line);
        json_t *record = NULL;
        nyb_status status = source ? NYB_OK : nyb_no_memory(err, path, 1, 1);
        if (status == NYB_OK && at + blank < end) {
            status = nyb_json_parse(&record, text + at, end - at, source, err);
            if (status == NYB_OK)
                status = nyb_report_add(data, record, source, err);
        }
        if (status != NYB_OK)
            return status;
        at = end + 1;
    }
    return NYB_OK;
}

static nyb_status load_file(nyb_report_data *data, const char *path, nyb_err *err)
{
    nyb_arena scratch = {0};
    char *text = NULL;
    size_t length = 0;
    json_t *record = NULL;
    nyb_status status = nyb_file_read(&scratch, path, FILE_LIMIT, &text, &length, err);
    if (status == NYB_OK && is_lines(text, length)) {
        status = nyb_report_load_lines(data, path, text, length, err);
    } else if (status == NYB_OK) {
        status = nyb_json_parse(&record, text, length, path, err);
        if (status == NYB_OK)
            status = nyb_report_add(data, record, path, err);
    }
    nyb_arena_clear(&scratch);
    return status;
}

nyb_status nyb_report_load(nyb_report_data *data, const char *const *paths, size_t count,
                           nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = load_file(data, paths[i], err);
    return status;
}

void nyb_report_clear(nyb_report_data *data)
{
    json_decref(data->records);
    json_decref(data->sources);
    nyb_arena_clear(&data->arena);
    *data = (nyb_report_data){0};
}

const nyb_report_point *nyb_report_base(const nyb_report_data *data)
{
    for (size_t i = 0; i < data->point_count; i++) {
        if (data->points[i].base)
            return &data->points[i];
    }
    return NULL;
}
