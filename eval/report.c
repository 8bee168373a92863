#include "nybble/report.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "eval/point.h"
#include "eval/report_page.h"

nyb_status nyb_report_check(const nyb_report_params *params, nyb_err *err)
{
    const char *const files[] = {params->html, params->chart, params->points};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (files[i] && !params->force && nyb_path_exists(files[i]))
            return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it",
                            files[i]);
    }
    return NYB_OK;
}

// ---- A comparison as JSON lines -------------------------------------------------------------

// The last part of a path, without slashes at its end.
static char *name_of(nyb_arena *arena, const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return nyb_arena_text(arena, path + (start < end ? start : 0), end - (start < end ? start : 0));
}

static nyb_status add_line(nyb_bytes *lines, const json_t *point, nyb_err *err)
{
    char *const text = json_dumps(point, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text)
        return nyb_no_memory(err, "record", 1, 1);
    nyb_markup_put(lines, text);
    nyb_markup_put(lines, "\n");
    free(text); // json_dumps() takes it from the system
    return nyb_bytes_status(lines, err);
}

static nyb_status fill_point(const nyb_context *ctx, json_t *point, const nyb_report_comparison *c,
                             size_t i, nyb_err *err)
{
    if (i == 0)
        json_object_set_new(point, "data", nyb_point_data(c->eval, &c->rows[0].eval));
    nyb_status status = nyb_point_look(ctx, point, c->folders[i], err);
    if (status == NYB_OK && c->prompt)
        status = nyb_point_speak(ctx, point, c->folders[i], c->prompt, c->new_tokens, err);
    nyb_step(ctx, &(nyb_progress){"describe", c->folders[i], "checkpoints", i + 1, c->count});
    return status;
}

static nyb_status describe(const nyb_context *ctx, nyb_bytes *lines, const nyb_report_comparison *c,
                           nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < c->count; i++) {
        const char *const name = name_of(&arena, c->folders[i]);
        json_t *const point = name ? nyb_point_new(name, &c->rows[i], i == 0) : NULL;
        status = point ? fill_point(ctx, point, c, i, err) : nyb_no_memory(err, "record", 1, 1);
        if (status == NYB_OK)
            status = add_line(lines, point, err);
        json_decref(point);
    }
    nyb_arena_clear(&arena);
    return status;
}

// ---- Files ----------------------------------------------------------------------------------

static nyb_status write_page(nyb_report_data *data, const nyb_report_params *params, bool picture,
                             nyb_err *err)
{
    nyb_bytes out = {0};
    nyb_page page = {.out = &out, .data = data, .title = params->title, .err = err};
    nyb_status status = picture ? nyb_page_picture(&page) : nyb_page_write(&page);
    if (status == NYB_OK)
        status = nyb_file_write(picture ? params->chart : params->html, out.at, out.count, err);
    nyb_bytes_clear(&out);
    return status;
}

// The page is made of the lines as they are in the file, so that the file alone gives the same one.
static nyb_status show(nyb_report_data *data, const nyb_report_params *params,
                       const nyb_bytes *lines, nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (params->points)
        status = nyb_file_write(params->points, lines->at ? lines->at : "", lines->count, err);
    if (!params->html && !params->chart)
        return status;
    if (status == NYB_OK && lines->count > 0)
        status = nyb_report_load_lines(data, "comparison", lines->at, lines->count, err);
    if (status == NYB_OK)
        status = nyb_report_load(data, params->files, params->file_count, err);
    if (status == NYB_OK)
        status = nyb_report_digest(data, err);
    if (status == NYB_OK && params->html)
        status = write_page(data, params, false, err);
    if (status == NYB_OK && params->chart)
        status = write_page(data, params, true, err);
    return status;
}

nyb_status nyb_report(const nyb_context *ctx, const nyb_report_params *params, nyb_err *err)
{
    nyb_report_data data = {0};
    nyb_bytes lines = {0};
    nyb_status status = nyb_report_check(params, err);
    if (status == NYB_OK && params->comparison)
        status = describe(ctx, &lines, params->comparison, err);
    if (status == NYB_OK)
        status = show(&data, params, &lines, err);
    nyb_report_clear(&data);
    nyb_bytes_clear(&lines);
    return status;
}
