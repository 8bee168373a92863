#include "eval/sweep_points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/hessian_store.h"
#include "calib/recipe.h"
#include "core/file.h"
#include "eval/sweep_words.h"

// What a point may say beside settings.
static const char *const point_keys[] = {"calibration", "num_samples", "mode", NULL};

bool nyb_json_digest(const json_t *value, char text[NYB_HASH_TEXT])
{
    char *const all = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (all)
        nyb_hash_of(all, strlen(all), text);
    free(all);
    return all != NULL;
}

// ---- Which calibration --------------------------------------------------------------------------

// The digest of the tokens that the set has: two files with the same text are the same set.
static nyb_status look_at_tokens(nyb_sweep_spec *s, const nyb_context *ctx,
                                 nyb_sweep_calibration *c, nyb_err *err)
{
    nyb_samples samples;
    nyb_hash hash;
    char text[NYB_HASH_TEXT];
    const nyb_status status = nyb_samples_open(ctx, &samples, s->opened, &c->samples, err);
    if (status != NYB_OK)
        return status;
    const size_t shape[] = {samples.count, samples.length, (size_t) c->experts};
    const size_t tokens = samples.count * samples.length;
    nyb_hash_init(&hash);
    nyb_hash_add(&hash, shape, sizeof(shape));
    nyb_hash_add(&hash, samples.ids, tokens * sizeof(*samples.ids));
    if (samples.first_weight > 1)
        nyb_hash_add(&hash, &samples.first_weight, sizeof(samples.first_weight));
    if (samples.marks)
        nyb_hash_add(&hash, samples.marks, tokens);
    nyb_hash_text(&hash, text);
    nyb_samples_close(&samples);
    c->digest = nyb_arena_text(&s->arena, text, strlen(text));
    c->store = nyb_arena_format(&s->arena, "%s/stores/%s-n%zu-%.8s.h5", s->out, c->name,
                                c->samples.count, text);
    return c->digest && c->store ? NYB_OK : nyb_no_memory(err, "calibration", 1, 1);
}

static void add_samples(nyb_words *w, const nyb_sweep_calibration *c)
{
    static const char *const bos[] = {"auto", "never", "always"};
    for (size_t i = 0; i < c->samples.path_count; i++)
        nyb_words_option(w, "calib", c->samples.paths[i]);
    nyb_words_number(w, "num-samples", c->samples.count);
    nyb_words_number(w, "sequence-length", c->samples.length);
    if (c->samples.first_weight > 1)
        nyb_words_number(w, "first-weight", c->samples.first_weight);
    if (c->samples.bos != NYB_BOS_AUTO)
        nyb_words_option(w, "bos", bos[c->samples.bos]);
    if (c->samples.shuffle)
        nyb_words_number(w, "seed", c->samples.seed);
    if (c->experts == NYB_EXPERTS_ALL)
        nyb_words_option(w, "expert-calibration", "all");
}

static nyb_status look_at(nyb_sweep_spec *s, const nyb_context *ctx, nyb_sweep_calibration *c,
                          nyb_err *err)
{
    nyb_hessian_store store;
    if (c->digest)
        return NYB_OK;
    if (c->samples.path_count > 0) {
        nyb_words w = nyb_words_of(&s->arena, "nybble calibrate");
        const nyb_status status = look_at_tokens(s, ctx, c, err);
        nyb_words_add(&w, s->model);
        add_samples(&w, c);
        nyb_words_option(&w, "output", c->store);
        c->command = w.text;
        return status == NYB_OK && !w.text ? nyb_no_memory(err, "command", 1, 1) : status;
    }
    const nyb_status status = nyb_hessian_store_open(&store, c->store, err);
    if (status != NYB_OK)
        return status;
    c->digest = nyb_arena_text(&s->arena, store.digest, strlen(store.digest));
    nyb_hessian_store_close(&store);
    return c->digest ? NYB_OK : nyb_no_memory(err, "calibration", 1, 1);
}

// The set of this name with this many windows (0: as the spec says).
static nyb_status find_set(nyb_sweep_spec *s, const char *name, size_t windows,
                           nyb_sweep_calibration **out, nyb_err *err)
{
    nyb_sweep_calibration *own = NULL;
    for (size_t i = 0; i < s->calibration_count && !own; i++)
        own = !name || strcmp(name, s->calibrations[i].name) == 0 ? &s->calibrations[i] : NULL;
    *out = own;
    if (name && !own)
        return nyb_fail(err, NYB_E_FORMAT, "%s: there is no calibration '%s'", s->path, name);
    if (!own || windows == 0 || windows == own->samples.count)
        return NYB_OK;
    if (own->samples.path_count == 0)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: 'num_samples' goes with calibration files, not with %s", s->path,
                        own->store);
    for (size_t i = s->calibration_count; i < s->set_count; i++) {
        *out = &s->calibrations[i];
        if (strcmp((*out)->name, own->name) == 0 && (*out)->samples.count == windows)
            return NYB_OK;
    }
    if (s->set_count == s->calibration_count + NYB_SWEEP_SETS)
        return nyb_fail(err, NYB_E_ARG, "%s: more than %d sets of calibration data", s->path,
                        NYB_SWEEP_SETS);
    *out = &s->calibrations[s->set_count++];
    **out = *own;
    (*out)->samples.count = windows;
    (*out)->digest = (*out)->store = (*out)->command = NULL;
    return NYB_OK;
}

// ---- One point ----------------------------------------------------------------------------------

// Leaves out what the method does not look at, so that a grid has no two points that are the same,
// and what would contradict a method that has it fixed.
static void drop_unused(json_t *settings, nyb_method method)
{
    static const char *const solver[] = {"hessian_damping", "refine", "activation_order",
                                         "static_groups"};
    static const char *const fixed[] = {"weight_bits", "symmetric", "scale_search"};
    for (size_t i = 0; i < 4 && method != NYB_METHOD_GPTQ; i++)
        json_object_del(settings, solver[i]);
    for (size_t i = 0; i < 3 && method != NYB_METHOD_GPTQ && method != NYB_METHOD_RTN; i++)
        json_object_del(settings, fixed[i]);
    if (method == NYB_METHOD_INT8 || method == NYB_METHOD_FLOAT8)
        json_object_del(settings, "group_size");
}

static nyb_method method_of(const json_t *settings)
{
    const char *const word = json_string_value(json_object_get(settings, "method"));
    nyb_method method = NYB_METHOD_GPTQ;
    (void) nyb_method_by_name(word ? word : "gptq", &method);
    return method;
}

static const char *short_name(const char *key)
{
    return strcmp(key, "activation_order") == 0  ? "order"
           : strcmp(key, "hessian_damping") == 0 ? "damping"
           : strcmp(key, "num_samples") == 0     ? "n"
                                                 : key;
}

// "gptq-3-g64", and behind it what the point says of itself beside method, bits and groups.
static const char *name_of(nyb_sweep_spec *s, const nyb_sweep_task *t, const json_t *own)
{
    const nyb_settings *const p = &t->params.settings;
    const char *key;
    json_t *value;
    char *const bits = nyb_arena_format(&s->arena, "%s-%u", nyb_method_name(p->method), p->bits);
    nyb_words w = nyb_words_of(&s->arena, bits ? bits : "");
    nyb_words_join(&w, p->group_size ? nyb_arena_format(&s->arena, "g%zu", p->group_size) : "row");
    json_object_foreach((json_t *) (uintptr_t) own, key, value)
    {
        const bool setting = json_object_get(t->settings, key) != NULL;
        const char *const word = nyb_word_of(&s->arena, value);
        if (strcmp(key, "method") == 0 || strcmp(key, "weight_bits") == 0 ||
            strcmp(key, "group_size") == 0)
            continue;
        if (strcmp(key, "symmetric") == 0)
            nyb_words_join(&w, json_is_true(value) ? "sym" : "asym");
        else if (setting || strcmp(key, "num_samples") == 0)
            nyb_words_join(&w,
                           nyb_arena_format(&s->arena, "%s_%s", short_name(key), word ? word : ""));
        else if (strcmp(key, "calibration") == 0 || strcmp(key, "mode") == 0)
            nyb_words_join(&w, word);
    }
    if (!bits || !w.text)
        return NULL;
    size_t same = 1;
    const char *name = w.text;
    for (size_t i = 0; i + 1 < s->count && name;) { // the last one is this
        const bool taken = strcmp(s->tasks[i].name, name) == 0;
        name = taken ? nyb_arena_format(&s->arena, "%s-%zu", w.text, ++same) : name;
        i = taken ? 0 : i + 1;
    }
    return name;
}

static nyb_status set_command(nyb_sweep_spec *s, nyb_sweep_task *t, nyb_err *err)
{
    nyb_quantize_params *const p = &t->params;
    nyb_words w = nyb_words_of(&s->arena, "nybble quantize");
    p->out = nyb_arena_format(&s->arena, "%s/points/%s", s->out, t->name);
    nyb_words_add(&w, s->model);
    if (p->hessians)
        nyb_words_option(&w, "hessians", p->hessians);
    else if (t->calibration)
        add_samples(&w, t->calibration);
    nyb_words_settings(&w, t->settings);
    if (s->recipe)
        nyb_words_option(&w, "recipe", s->recipe);
    nyb_words_option(&w, "format", s->format);
    nyb_words_option(&w, "output", p->out);
    t->command = w.text;
    return w.text ? NYB_OK : nyb_no_memory(err, "command", 1, 1);
}

static nyb_status identify(nyb_sweep_spec *s, nyb_sweep_task *t, nyb_err *err)
{
    const nyb_sweep_calibration *const c = t->calibration;
    t->identity =
        json_pack("{s:O, s:O, s:o, s:s?, s:b}", "common", s->common, "settings", t->settings,
                  "resolved", nyb_settings_json(&t->params.settings), "calibration",
                  c ? c->digest : NULL, "sequential", t->params.hessians == NULL);
    return t->identity && nyb_json_digest(t->identity, t->key) ? NYB_OK
                                                               : nyb_no_memory(err, "point", 1, 1);
}

// Which Hessians: of the store, or made in the run.
static nyb_status calibrate(nyb_sweep_spec *s, const nyb_context *ctx, nyb_sweep_task *t,
                            const json_t *point, nyb_err *err)
{
    const char *name = NULL, *mode = "independent";
    size_t windows = 0;
    nyb_sweep_calibration *c = NULL;
    nyb_status status = nyb_json_text(point, "calibration", &name, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_size(point, "num_samples", &windows, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_text(point, "mode", &mode, s->path, err);
    if (status == NYB_OK)
        status = find_set(s, name, windows, &c, err);
    const bool sequential = strcmp(mode, "sequential") == 0;
    if (status == NYB_OK && !sequential && strcmp(mode, "independent") != 0)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: 'mode' has no value '%s'", s->path, mode);
    if (status == NYB_OK && !c && t->params.settings.method == NYB_METHOD_GPTQ)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: gptq needs a 'calibration'", s->path);
    if (status == NYB_OK && sequential && c && c->samples.path_count == 0)
        status = nyb_fail(err, NYB_E_ARG, "%s: mode sequential needs calibration files, not %s",
                          s->path, c->store);
    if (status != NYB_OK || !c || (sequential && t->params.settings.method != NYB_METHOD_GPTQ))
        return status;
    t->calibration = c;
    t->params.experts.calibration = c->experts;
    status = look_at(s, ctx, c, err);
    if (sequential)
        t->params.samples = c->samples;
    else
        t->params.hessians = c->store;
    return status;
}

// own: what the point says of itself, over the spec's "settings".
static nyb_status add_point(nyb_sweep_spec *s, const nyb_context *ctx, const json_t *own,
                            nyb_err *err)
{
    const json_t *const general = json_object_get(s->document, "settings");
    nyb_sweep_task *const t = &s->tasks[s->count];
    json_t *const point = general ? json_copy((json_t *) (uintptr_t) general) : json_object();
    *t = (nyb_sweep_task){.params = NYB_QUANTIZE_DEFAULTS};
    t->params.samples = (nyb_samples_params){0};
    t->settings = json_object();
    if (s->count == NYB_SWEEP_POINTS || !point || !t->settings ||
        json_object_update(point, (json_t *) (uintptr_t) own) != 0)
        return nyb_fail(err, NYB_E_ARG, "%s: more than %d points", s->path, NYB_SWEEP_POINTS);
    json_object_update(t->settings, point);
    for (size_t i = 0; point_keys[i]; i++)
        json_object_del(t->settings, point_keys[i]);
    drop_unused(t->settings, method_of(point));
    t->params.model = s->model;
    t->params.format = s->format;
    t->params.recipe = s->recipe;
    nyb_status status = nyb_settings_take(t->settings, (const char *const[]){NULL}, s->path,
                                          &t->params.settings, &t->params.given, err);
    if (status == NYB_OK)
        status = calibrate(s, ctx, t, point, err);
    if (status == NYB_OK)
        status = identify(s, t, err);
    json_decref(point);
    for (size_t i = 0; status == NYB_OK && i < s->count; i++) {
        if (strcmp(s->tasks[i].key, t->key) != 0)
            continue;
        json_decref(t->identity);
        json_decref(t->settings);
        return NYB_OK;
    }
    s->count++; // its JSON is freed with the others, also after an error
    if (status != NYB_OK)
        return status;
    t->name = name_of(s, t, own);
    return t->name ? set_command(s, t, err) : nyb_no_memory(err, "name", 1, 1);
}

// ---- All points -----------------------------------------------------------------------------------

// Every combination of the grid's values: the last key runs fastest.
static nyb_status add_grid(nyb_sweep_spec *s, const nyb_context *ctx, const json_t *grid,
                           nyb_err *err)
{
    size_t total = 1;
    const char *key;
    json_t *values;
    json_object_foreach((json_t *) (uintptr_t) grid, key, values)
    {
        const size_t count = json_is_array(values) ? json_array_size(values) : 1;
        if (count == 0 || total > NYB_SWEEP_POINTS / count)
            return nyb_fail(err, NYB_E_FORMAT, "%s: 'grid' has %s", s->path,
                            count == 0 ? "an empty list" : "too many points");
        total *= count;
    }
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < total; i++) {
        json_t *const own = json_object();
        size_t rest = total, at = i;
        json_object_foreach((json_t *) (uintptr_t) grid, key, values)
        {
            const bool list = json_is_array(values);
            rest /= list ? json_array_size(values) : 1;
            json_object_set(own, key, list ? json_array_get(values, at / rest) : values);
            at %= rest;
        }
        status = add_point(s, ctx, own, err);
        json_decref(own);
    }
    return status;
}

nyb_status nyb_sweep_points_make(nyb_sweep_spec *spec, const nyb_context *ctx, nyb_err *err)
{
    const json_t *const grid = json_object_get(spec->document, "grid");
    const json_t *const list = json_object_get(spec->document, "points");
    size_t i;
    json_t *point;
    if ((grid && !json_is_object(grid)) || (list && !json_is_array(list)) ||
        (json_object_size(grid) == 0 && json_array_size(list) == 0))
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: want points: a 'grid' of lists by setting, or 'points', a list of "
                        "settings",
                        spec->path);
    spec->tasks = nyb_arena_alloc(&spec->arena, NYB_SWEEP_POINTS + 1, sizeof(*spec->tasks));
    if (!spec->tasks)
        return nyb_no_memory(err, "points", NYB_SWEEP_POINTS, sizeof(*spec->tasks));
    nyb_status status = json_object_size(grid) > 0 ? add_grid(spec, ctx, grid, err) : NYB_OK;
    json_array_foreach(list, i, point)
    {
        if (status == NYB_OK && !json_is_object(point))
            status = nyb_fail(err, NYB_E_FORMAT, "%s: entry %zu of 'points' is not an object",
                              spec->path, i);
        if (status == NYB_OK)
            status = add_point(spec, ctx, point, err);
    }
    return status;
}
