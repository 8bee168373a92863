#include "eval/sweep_results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/recipe.h"
#include "calib/report_name.h"
#include "core/file.h"
#include "eval/point.h"

enum { LINES_LIMIT = 1 << 30 };

// ---- Reading ------------------------------------------------------------------------------------

static nyb_status read_lines(nyb_sweep_lines *l, const char *text, nyb_err *err)
{
    size_t number = 1;
    for (const char *at = text, *end = strchr(at, '\n'); end;
         at = end + 1, end = strchr(at, '\n'), number++) {
        json_t *line = NULL;
        nyb_err inner = {0};
        const nyb_status status =
            nyb_json_parse(&line, at, (size_t) (end - at), "the line", &inner);
        const bool good = status == NYB_OK && json_is_string(json_object_get(line, "key"));
        if (!good || json_array_append(l->all, line) != 0) {
            json_decref(line);
            return nyb_fail(
                err, NYB_E_FORMAT,
                "%s: line %zu is no result of a sweep; move the file away to start over",
                l->lines_path, number);
        }
        json_decref(line);
    }
    return NYB_OK;
}

nyb_status nyb_sweep_lines_open(nyb_sweep_lines *out, const char *folder, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    *out = (nyb_sweep_lines){.all = json_array()};
    out->lines_path = nyb_path_join(&out->arena, folder, "results.jsonl");
    out->table_path = nyb_path_join(&out->arena, folder, "results.csv");
    nyb_status status = out->all && out->lines_path && out->table_path
                            ? NYB_OK
                            : nyb_no_memory(err, "results", 1, 1);
    if (status == NYB_OK && nyb_path_exists(out->lines_path)) {
        status = nyb_file_read(&out->arena, out->lines_path, LINES_LIMIT, &text, &length, err);
        if (status == NYB_OK)
            status = read_lines(out, text, err);
    }
    if (status != NYB_OK)
        nyb_sweep_lines_close(out);
    return status;
}

void nyb_sweep_lines_close(nyb_sweep_lines *lines)
{
    json_decref(lines->all);
    nyb_arena_clear(&lines->arena);
    *lines = (nyb_sweep_lines){0};
}

const json_t *nyb_sweep_lines_find(const nyb_sweep_lines *lines, const char *key)
{
    size_t i;
    json_t *line;
    json_array_foreach(lines->all, i, line)
    {
        if (strcmp(json_string_value(json_object_get(line, "key")), key) == 0)
            return line;
    }
    return NULL;
}

double nyb_sweep_number(const json_t *line, const char *key)
{
    const json_t *const value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : (double) NAN;
}

// ---- Writing ------------------------------------------------------------------------------------

static const char *const settings_columns[] = {
    "method",           "weight_bits",   "group_size",      "symmetric", "scale_search",
    "activation_order", "static_groups", "hessian_damping", "refine"};
static const char *const measured_columns[] = {
    "bits_per_weight", "bytes", "loss", "perplexity", "kl", "top1", "layer_loss", "seconds"};
enum {
    SETTINGS = sizeof(settings_columns) / sizeof(settings_columns[0]),
    MEASURED = sizeof(measured_columns) / sizeof(measured_columns[0]),
};

// A text that grows; `at` is NULL once there was no memory.
typedef struct text {
    char *at;
    size_t length, room;
} text;

static void put(text *t, const char *more, size_t length)
{
    if (t->at && t->length + length > t->room) {
        const size_t room = 2 * (t->room + length);
        char *const larger = nyb_alloc_raw(room, 1);
        if (larger)
            memcpy(larger, t->at, t->length);
        nyb_free(t->at);
        t->at = larger;
        t->room = room;
    }
    if (t->at)
        memcpy(t->at + t->length, more, length);
    t->length += length;
}

static void put_word(text *t, const char *word)
{
    put(t, word, strlen(word));
}

static text start_text(void)
{
    return (text){.at = nyb_alloc_raw(1 << 16, 1), .room = 1 << 16};
}

static nyb_status write_text(text *t, const char *path, nyb_err *err)
{
    const nyb_status status = t->at ? nyb_file_write(path, t->at, t->length, err)
                                    : nyb_no_memory(err, path, t->length, 1);
    nyb_free(t->at);
    return status;
}

static void put_cell(text *t, const json_t *value)
{
    char number[40];
    if (json_is_string(value)) {
        put_word(t, "\"");
        for (const char *at = json_string_value(value); *at; at++)
            put(t, *at == '"' ? "\"\"" : at, *at == '"' ? 2 : 1);
        put_word(t, "\"");
    } else if (json_is_boolean(value)) {
        put_word(t, json_is_true(value) ? "true" : "false");
    } else if (json_is_number(value)) {
        (void) snprintf(number, sizeof(number), "%.9g", json_number_value(value));
        put_word(t, number);
    }
    put_word(t, ",");
}

static void put_row(text *t, const json_t *line)
{
    const json_t *const settings = json_object_get(line, "settings");
    put_cell(t, json_object_get(line, "name"));
    for (size_t i = 0; i < SETTINGS; i++)
        put_cell(t, json_object_get(i == 0 ? line : settings, settings_columns[i]));
    put_cell(t, json_object_get(line, "calibration"));
    put_cell(t, json_object_get(line, "mode"));
    for (size_t i = 0; i < MEASURED; i++)
        put_cell(t, json_object_get(line, measured_columns[i]));
    put_cell(t, json_object_get(line, "command"));
    t->length--; // the last comma
    put_word(t, "\n");
}

static nyb_status write_table(const nyb_sweep_lines *l, nyb_err *err)
{
    size_t i;
    json_t *line;
    text table = start_text();
    put_word(&table, "name,");
    for (i = 0; i < SETTINGS; i++) {
        put_word(&table, settings_columns[i]);
        put_word(&table, ",");
    }
    put_word(&table, "calibration,mode,");
    for (i = 0; i < MEASURED; i++) {
        put_word(&table, measured_columns[i]);
        put_word(&table, ",");
    }
    put_word(&table, "command\n");
    json_array_foreach(l->all, i, line) put_row(&table, line);
    return write_text(&table, l->table_path, err);
}

static nyb_status write_lines(const nyb_sweep_lines *l, nyb_err *err)
{
    size_t i;
    json_t *line;
    text lines = start_text();
    json_array_foreach(l->all, i, line)
    {
        char *const words = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
        if (!words) {
            nyb_free(lines.at);
            return nyb_no_memory(err, l->lines_path, 1, 1);
        }
        put_word(&lines, words);
        put_word(&lines, "\n");
        free(words);
    }
    return write_text(&lines, l->lines_path, err);
}

nyb_status nyb_sweep_lines_add(nyb_sweep_lines *lines, json_t *line, nyb_err *err)
{
    if (json_array_append_new(lines->all, line) != 0)
        return nyb_no_memory(err, "results", 1, 1);
    const nyb_status status = write_lines(lines, err);
    return status == NYB_OK ? write_table(lines, err) : status;
}

// ---- One line -----------------------------------------------------------------------------------

static void set_number(json_t *line, const char *key, double value)
{
    if (isfinite(value))
        json_object_set_new(line, key, json_real(value));
}

static void add_measured(json_t *line, const nyb_sweep_spec *spec, const nyb_compared *row,
                         bool original)
{
    const nyb_eval_result *const e = &row->eval;
    json_object_set_new(line, "bytes", json_integer((json_int_t) row->bytes));
    json_object_set_new(line, "layer_bytes", json_integer((json_int_t) row->layer_bytes));
    set_number(line, "bits_per_weight", row->bits_per_weight);
    set_number(line, "loss", e->loss);
    set_number(line, "perplexity", e->perplexity);
    if (spec->kl && !original) {
        set_number(line, "kl", row->kl);
        set_number(line, "top1", row->top1);
    }
    json_object_set_new(line, "data", nyb_point_data(&spec->eval_params, e));
}

// The sum of the layers' losses for each last part of their names, and of all.
static void add_losses(json_t *line, const json_t *layers)
{
    json_t *const kinds = json_object();
    double sum = 0.0;
    size_t i;
    json_t *layer;
    bool any = false;
    json_array_foreach(layers, i, layer)
    {
        const char *const module = json_string_value(json_object_get(layer, "module"));
        const char *const dot = module ? strrchr(module, '.') : NULL;
        const double loss = nyb_sweep_number(layer, "loss");
        if (!module || !isfinite(loss))
            continue;
        const double before = json_number_value(json_object_get(kinds, dot ? dot + 1 : module));
        json_object_set_new(kinds, dot ? dot + 1 : module, json_real(before + loss));
        sum += loss;
        any = true;
    }
    if (any) {
        json_object_set_new(line, "layer_loss", json_real(sum));
        json_object_set(line, "kind_loss", kinds);
    }
    json_decref(kinds);
}

// What the checkpoint's own report says.
static nyb_status add_report(json_t *line, const nyb_sweep_task *task, nyb_err *err)
{
    nyb_arena arena = {0};
    json_t *report = NULL;
    const char *const path = nyb_path_join(&arena, task->params.out, NYB_REPORT_NAME);
    nyb_status status = path ? nyb_json_load(&report, path, err) : nyb_no_memory(err, "path", 1, 1);
    if (status == NYB_OK) {
        const json_t *const totals = json_object_get(report, "totals");
        json_t *const layers = json_object_get(report, "layers");
        if (!json_object_get(line, "bits_per_weight"))
            json_object_set(line, "bits_per_weight", json_object_get(totals, "bits_per_weight"));
        if (!json_object_get(line, "bytes"))
            json_object_set(line, "bytes", json_object_get(totals, "bytes_out"));
        json_object_set(line, "layers", layers);
        add_losses(line, layers);
    }
    json_decref(report);
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_sweep_line(json_t **out, const nyb_context *ctx, const nyb_sweep_spec *spec,
                          const nyb_sweep_task *task, const nyb_compared *row, nyb_err *err)
{
    const nyb_sweep_calibration *const c = task ? task->calibration : NULL;
    json_t *const line =
        task ? json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:s*, s:s, s:s*}", "schema",
                         "nybble.point/1", "name", task->name, "key", task->key, "method",
                         nyb_method_name(task->params.settings.method), "command", task->command,
                         "settings", nyb_settings_json(&task->params.settings), "calibration",
                         c ? c->name : NULL, "mode",
                         !c                      ? "none"
                         : task->params.hessians ? "independent"
                                                 : "sequential",
                         "calibrate", task->params.hessians ? c->command : NULL)
             : json_pack("{s:s, s:s, s:s, s:s, s:b}", "schema", "nybble.point/1", "name",
                         "original", "key", spec->key, "method", "original", "base", true);
    if (!line)
        return nyb_no_memory(err, "results", 1, 1);
    if (row)
        add_measured(line, spec, row, !task);
    nyb_status status = task ? add_report(line, task, err) : NYB_OK;
    if (status == NYB_OK)
        status = nyb_point_look(ctx, line, task ? task->params.out : spec->model, err);
    *out = status == NYB_OK ? line : NULL;
    if (status != NYB_OK)
        json_decref(line);
    return status;
}
