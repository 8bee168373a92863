// Running a sweep: stores, points, measurements, in the order of the spec.
#include "nybble/sweep.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "calib/shared.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "eval/sweep_results.h"
#include "eval/yardstick.h"

typedef struct sweep {
    const nyb_context *ctx;
    const nyb_sweep_params *params;
    nyb_sweep_spec spec;
    nyb_sweep_lines lines;
    nyb_shared shared;       // by all points
    nyb_yardstick yardstick; // .params NULL: not needed yet
    nyb_sweep_result result;
} sweep;

// ---- Folders and stores -----------------------------------------------------------------------

static nyb_status make_folder(sweep *s, const char *name, nyb_err *err)
{
    const char *const path =
        name ? nyb_path_join(&s->spec.arena, s->params->out, name) : s->params->out;
    if (!path)
        return nyb_no_memory(err, "path", 1, 1);
    return nyb_path_is_folder(path) ? NYB_OK : nyb_folder_make(path, err);
}

// Makes the store of a set unless it is there.
static nyb_status make_store(sweep *s, const nyb_sweep_calibration *c, nyb_err *err)
{
    const double start = nyb_seconds();
    const nyb_hessians_params params = {
        .model = s->spec.model, .out = c->store, .samples = c->samples, .experts = c->experts};
    if (!c->command || nyb_path_exists(c->store))
        return NYB_OK;
    nyb_log(s->ctx, NYB_LOG_INFO, "%s", c->command);
    const nyb_status status = nyb_calibrate_hessians(s->ctx, &params, NULL, err);
    s->result.calibrate_seconds += nyb_seconds() - start;
    return status;
}

// ---- One point --------------------------------------------------------------------------------

// Measures a checkpoint; NULL: the model as it is.
static nyb_status evaluate(sweep *s, const char *folder, nyb_compared *out, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_status status = NYB_OK;
    if (!s->yardstick.params)
        status = nyb_yardstick_open(&s->yardstick, s->spec.model, &s->spec.eval_params, err);
    if (status == NYB_OK)
        status = nyb_yardstick_measure(&s->yardstick, s->ctx, folder, s->spec.kl, out, err);
    s->result.eval_seconds += nyb_seconds() - start;
    return status;
}

static void tell(const sweep *s, const nyb_sweep_point *point)
{
    if (s->params->point)
        s->params->point(s->params->user, point);
}

// What a line says, for the caller.
static void tell_line(const sweep *s, const json_t *line, nyb_sweep_point point)
{
    point.name = json_string_value(json_object_get(line, "name"));
    point.command = json_string_value(json_object_get(line, "command"));
    point.bits_per_weight = nyb_sweep_number(line, "bits_per_weight");
    point.perplexity = nyb_sweep_number(line, "perplexity");
    point.kl = nyb_sweep_number(line, "kl");
    point.loss = nyb_sweep_number(line, "layer_loss");
    point.seconds = nyb_sweep_number(line, "seconds");
    tell(s, &point);
}

// Makes the checkpoint, or takes one that is there already from the same run.
static nyb_status make_point(sweep *s, const nyb_sweep_task *t, double *seconds, nyb_err *err)
{
    nyb_quantize_params params = t->params;
    params.resume = nyb_path_exists(params.out);
    if (!params.resume)
        params.force = true; // of what an interrupted run left
    nyb_status status = t->params.hessians ? make_store(s, t->calibration, err) : NYB_OK;
    const double made = nyb_seconds();
    if (status == NYB_OK)
        status = nyb_quantize_shared(s->ctx, &params, &s->shared, NULL, err);
    *seconds = nyb_seconds() - made;
    s->result.solve_seconds += nyb_seconds() - made;
    return status;
}

static nyb_status measure_point(sweep *s, const nyb_sweep_task *t, double seconds, nyb_err *err)
{
    nyb_compared row = {0};
    json_t *line = NULL;
    nyb_status status = s->spec.eval ? evaluate(s, t->params.out, &row, err) : NYB_OK;
    if (status == NYB_OK)
        status = nyb_sweep_line(&line, s->ctx, &s->spec, t, s->spec.eval ? &row : NULL, err);
    if (status != NYB_OK)
        return status;
    json_object_set_new(line, "seconds", json_real(seconds));
    return nyb_sweep_lines_add(&s->lines, line, err);
}

static nyb_status run_point(sweep *s, size_t index, nyb_err *err)
{
    const nyb_sweep_task *const t = &s->spec.tasks[index];
    const json_t *line = nyb_sweep_lines_find(&s->lines, t->key);
    const nyb_sweep_point point = {.index = index, .count = s->spec.count, .known = line != NULL};
    nyb_err inner = {0};
    double seconds = 0.0;
    if (line) {
        s->result.known++;
        tell_line(s, line, point);
        return NYB_OK;
    }
    nyb_status status = make_point(s, t, &seconds, &inner);
    if (status == NYB_OK)
        status = measure_point(s, t, seconds, &inner);
    if (status != NYB_OK)
        return nyb_fail(err, status, "%s: point '%s': %s", s->params->spec, t->name, inner.text);
    tell_line(s, nyb_sweep_lines_find(&s->lines, t->key), point);
    return s->params->keep ? NYB_OK : nyb_folder_remove(t->params.out, err);
}

// ---- All --------------------------------------------------------------------------------------

// The line of the model as it is.
static nyb_status run_original(sweep *s, nyb_err *err)
{
    nyb_compared row;
    json_t *line = NULL;
    if (!s->spec.eval || nyb_sweep_lines_find(&s->lines, s->spec.key))
        return NYB_OK;
    nyb_status status = evaluate(s, NULL, &row, err);
    if (status == NYB_OK)
        status = nyb_sweep_line(&line, s->ctx, &s->spec, NULL, &row, err);
    return status == NYB_OK ? nyb_sweep_lines_add(&s->lines, line, err) : status;
}

static nyb_status run_all(sweep *s, nyb_err *err)
{
    nyb_status status = make_folder(s, NULL, err);
    if (status == NYB_OK)
        status = make_folder(s, "stores", err);
    if (status == NYB_OK)
        status = make_folder(s, "points", err);
    if (status == NYB_OK)
        status = nyb_sweep_lines_open(&s->lines, s->params->out, err);
    if (status == NYB_OK)
        status = run_original(s, err);
    for (size_t i = 0; status == NYB_OK && i < s->spec.count; i++)
        status = run_point(s, i, err);
    return status;
}

static void list_all(const sweep *s)
{
    const double none = (double) NAN;
    for (size_t i = 0; i < s->spec.count; i++) {
        const nyb_sweep_task *const t = &s->spec.tasks[i];
        tell(s, &(nyb_sweep_point){.index = i,
                                   .count = s->spec.count,
                                   .name = t->name,
                                   .command = t->command,
                                   .bits_per_weight = none,
                                   .perplexity = none,
                                   .kl = none,
                                   .loss = none,
                                   .seconds = none});
    }
}

nyb_status nyb_sweep(const nyb_context *ctx, const nyb_sweep_params *params,
                     nyb_sweep_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    sweep s = {.ctx = ctx, .params = params, .shared.fleeting = !params->keep};
    nyb_status status = nyb_sweep_spec_open(&s.spec, ctx, params->spec, params->out, err);
    if (status != NYB_OK)
        return status;
    s.result.points = s.spec.count;
    if (params->list)
        list_all(&s);
    else
        status = run_all(&s, err);
    s.result.seconds = nyb_seconds() - start;
    if (status == NYB_OK && result)
        *result = s.result;
    nyb_yardstick_close(&s.yardstick);
    nyb_shared_close(&s.shared);
    nyb_sweep_lines_close(&s.lines);
    nyb_sweep_spec_close(&s.spec);
    return status;
}
