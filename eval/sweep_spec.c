#include "eval/sweep_spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/hessian_store.h"
#include "calib/recipe.h"
#include "calib/source_files.h"
#include "core/file.h"
#include "eval/sweep_points.h"
#include "eval/sweep_words.h"
#include "nybble/version.h"

static nyb_status check_keys(const json_t *object, const char *const *known, const char *where,
                             nyb_err *err)
{
    const char *key;
    json_t *value;
    if (object && !json_is_object(object))
        return nyb_fail(err, NYB_E_FORMAT, "%s is not an object", where);
    json_object_foreach((json_t *) (uintptr_t) object, key, value)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0)
            k++;
        if (!*k)
            return nyb_fail(err, NYB_E_FORMAT, "%s: unknown key '%s'", where, key);
    }
    return NYB_OK;
}

static nyb_status hash_file(json_t **out, const char *path, nyb_err *err)
{
    char hash[NYB_HASH_TEXT];
    nyb_map map;
    const nyb_status status = nyb_map_open(&map, path, err);
    if (status != NYB_OK)
        return status;
    nyb_hash_of(map.at, map.bytes, hash);
    nyb_map_close(&map);
    *out = json_string(hash);
    return *out ? NYB_OK : nyb_no_memory(err, path, 1, 1);
}

static nyb_status take_word(const json_t *object, const char *key, const char *const *words,
                            unsigned *out, const char *where, nyb_err *err)
{
    const char *word = NULL;
    const nyb_status status = nyb_json_text(object, key, &word, where, err);
    if (status != NYB_OK || !word)
        return status;
    for (unsigned i = 0; words[i]; i++) {
        if (strcmp(words[i], word) == 0) {
            *out = i;
            return NYB_OK;
        }
    }
    return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has no value '%s'", where, key, word);
}

static const char *const bos_words[] = {"auto", "never", "always", NULL};

static nyb_status take_bos(const json_t *object, nyb_bos *out, const char *where, nyb_err *err)
{
    unsigned bos = *out;
    const nyb_status status = take_word(object, "bos", bos_words, &bos, where, err);
    *out = (nyb_bos) bos;
    return status;
}

// ---- Calibration data -------------------------------------------------------------------------

static nyb_status take_files(nyb_sweep_spec *s, nyb_sweep_calibration *c, const json_t *files,
                             nyb_err *err)
{
    const size_t count = json_is_string(files) ? 1 : json_array_size(files);
    const char **const paths = nyb_arena_alloc(&s->arena, count + 1, sizeof(*paths));
    if (!paths)
        return nyb_no_memory(err, "paths", count, sizeof(*paths));
    for (size_t i = 0; i < count; i++) {
        paths[i] = json_string_value(json_is_string(files) ? files : json_array_get(files, i));
        if (!paths[i])
            return nyb_fail(err, NYB_E_FORMAT, "%s: 'files' of '%s' are not names", s->path,
                            c->name);
    }
    c->samples.paths = paths;
    c->samples.path_count = count;
    return NYB_OK;
}

// A store has its own samples.
static nyb_status check_store_keys(const json_t *object, const char *where, nyb_err *err)
{
    static const char *const others[] = {"num_samples", "sequence_length", "bos", "seed",
                                         "first_weight"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (json_object_get(object, others[i]))
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' goes with 'files', not with 'hessians'",
                            where, others[i]);
    }
    return NYB_OK;
}

static nyb_status take_calibration(nyb_sweep_spec *s, nyb_sweep_calibration *c, const char *name,
                                   const json_t *object, nyb_err *err)
{
    static const char *const known[] = {
        "files", "hessians", "num_samples",        "sequence_length",
        "bos",   "seed",     "expert_calibration", "first_weight",
        NULL};
    static const char *const experts[] = {"routed", "all", NULL};
    const char *const where = nyb_arena_format(&s->arena, "%s: calibration '%s'", s->path, name);
    unsigned tokens = 0;
    size_t seed = 0;
    *c = (nyb_sweep_calibration){.name = name, .samples = NYB_SAMPLES_DEFAULTS};
    c->samples.length = 512;
    if (!where)
        return nyb_no_memory(err, "calibration", 1, 1);
    nyb_status status = check_keys(object, known, where, err);
    if (status == NYB_OK)
        status = nyb_json_text(object, "hessians", &c->store, where, err);
    if (status == NYB_OK)
        status = take_files(s, c, json_object_get(object, "files"), err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "num_samples", &c->samples.count, where, err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "sequence_length", &c->samples.length, where, err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "seed", &seed, where, err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "first_weight", &c->samples.first_weight, where, err);
    if (status == NYB_OK)
        status = take_bos(object, &c->samples.bos, where, err);
    if (status == NYB_OK)
        status = take_word(object, "expert_calibration", experts, &tokens, where, err);
    c->samples.shuffle = json_object_get(object, "seed") != NULL;
    c->samples.seed = seed;
    c->experts = (nyb_expert_calibration) tokens;
    if (status == NYB_OK && (c->store != NULL) == (c->samples.path_count > 0))
        status = nyb_fail(err, NYB_E_FORMAT, "%s: want either 'files' or 'hessians'", where);
    if (status == NYB_OK && c->store)
        status = check_store_keys(object, where, err);
    return status;
}

static nyb_status take_calibrations(nyb_sweep_spec *s, nyb_err *err)
{
    const json_t *const all = json_object_get(s->document, "calibration");
    const bool one = json_object_get(all, "files") || json_object_get(all, "hessians");
    const size_t count = !all ? 0 : one ? 1 : json_object_size(all);
    const char *name;
    json_t *object;
    if (all && count == 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'calibration' names no data", s->path);
    // With each number of windows that a point asks for, a set is another one.
    s->calibrations = nyb_arena_alloc(&s->arena, count + NYB_SWEEP_SETS, sizeof(*s->calibrations));
    if (!s->calibrations)
        return nyb_no_memory(err, "calibration", count, sizeof(*s->calibrations));
    if (one) {
        s->calibration_count = s->set_count = 1;
        return take_calibration(s, &s->calibrations[0], "calibration", all, err);
    }
    json_object_foreach((json_t *) (uintptr_t) all, name, object)
    {
        const nyb_status status =
            take_calibration(s, &s->calibrations[s->set_count++], name, object, err);
        if (status != NYB_OK)
            return status;
    }
    s->calibration_count = s->set_count;
    return NYB_OK;
}

// ---- The rest ---------------------------------------------------------------------------------

static nyb_status take_eval(nyb_sweep_spec *s, nyb_err *err)
{
    static const char *const known[] = {"text", "window", "stride", "max_tokens",
                                        "bos",  "kl",     NULL};
    const json_t *const object = json_object_get(s->document, "eval");
    nyb_eval_params *const p = &s->eval_params;
    *p = NYB_EVAL_DEFAULTS;
    s->eval = object != NULL;
    if (!object)
        return NYB_OK;
    nyb_status status = check_keys(object, known, "'eval' of the sweep", err);
    if (status == NYB_OK)
        status = nyb_json_text(object, "text", &p->path, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "window", &p->window, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "stride", &p->stride, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_size(object, "max_tokens", &p->max_tokens, s->path, err);
    if (status == NYB_OK)
        status = take_bos(object, &p->bos, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_bool(object, "kl", &s->kl, s->path, err);
    if (status == NYB_OK && !p->path)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: 'eval' has no 'text'", s->path);
    return status;
}

// What every point depends on.
static nyb_status describe(nyb_sweep_spec *s, const nyb_context *ctx, nyb_err *err)
{
    json_t *text = NULL, *recipe = NULL;
    nyb_status status = s->eval ? hash_file(&text, s->eval_params.path, err) : NYB_OK;
    if (status == NYB_OK && s->recipe)
        status = hash_file(&recipe, s->recipe, err);
    json_t *const evaluated =
        s->eval
            ? json_pack("{s:O, s:O?}", "as", json_object_get(s->document, "eval"), "sha256", text)
            : json_null();
    json_decref(text);
    s->common = json_pack("{s:s, s:o, s:o, s:s, s:o?, s:i}", "nybble", nyb_version(), "model",
                          nyb_source_files(ctx, nyb_model_checkpoint(s->opened)), "eval", evaluated,
                          "format", s->format, "recipe", recipe, "compute",
                          (int) (ctx ? ctx->compute : NYB_COMPUTE_AUTO));
    if (status == NYB_OK && (!s->common || !nyb_json_digest(s->common, s->key)))
        status = nyb_no_memory(err, "sweep", 1, 1);
    return status;
}

static nyb_status read_document(nyb_sweep_spec *s, nyb_err *err)
{
    static const char *const known[] = {"model",  "calibration", "eval",   "settings", "grid",
                                        "points", "format",      "recipe", NULL};
    nyb_status status = nyb_json_load(&s->document, s->path, err);
    if (status != NYB_OK)
        return status;
    if (!json_is_object(s->document))
        return nyb_fail(err, NYB_E_FORMAT, "%s: a sweep is a JSON object", s->path);
    s->format = "compressed-tensors";
    status = check_keys(s->document, known, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_text(s->document, "model", &s->model, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_text(s->document, "format", &s->format, s->path, err);
    if (status == NYB_OK)
        status = nyb_json_text(s->document, "recipe", &s->recipe, s->path, err);
    if (status == NYB_OK && !s->model)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: has no 'model'", s->path);
    if (status == NYB_OK)
        status = take_eval(s, err);
    return status == NYB_OK ? take_calibrations(s, err) : status;
}

nyb_status nyb_sweep_spec_open(nyb_sweep_spec *out, const nyb_context *ctx, const char *path,
                               const char *folder, nyb_err *err)
{
    *out = (nyb_sweep_spec){.path = path, .out = folder};
    nyb_status status = read_document(out, err);
    if (status == NYB_OK)
        status = nyb_model_open(&out->opened, out->model, err);
    if (status == NYB_OK)
        status = describe(out, ctx, err);
    if (status == NYB_OK)
        status = nyb_sweep_points_make(out, ctx, err);
    nyb_model_close(out->opened);
    out->opened = NULL;
    if (status != NYB_OK)
        nyb_sweep_spec_close(out);
    return status;
}

void nyb_sweep_spec_close(nyb_sweep_spec *spec)
{
    for (size_t i = 0; i < spec->count; i++) {
        json_decref(spec->tasks[i].identity);
        json_decref(spec->tasks[i].settings);
    }
    json_decref(spec->document);
    json_decref(spec->common);
    nyb_arena_clear(&spec->arena);
    *spec = (nyb_sweep_spec){0};
}
