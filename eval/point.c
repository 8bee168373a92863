#include "eval/point.h"

#include <math.h>
#include <string.h>

#include "calib/report_name.h"
#include "core/file.h"
#include "eval/point_histogram.h"
#include "model/unicode.h"
#include "nybble/generate.h"
#include "nybble/tokenizer.h"

json_t *nyb_point_text(const char *text)
{
    nyb_bytes whole = {0};
    nyb_utf8_repair(&whole, text, strlen(text));
    json_t *const out = whole.failed ? NULL : json_stringn(whole.at ? whole.at : "", whole.count);
    nyb_bytes_clear(&whole);
    return out;
}

// Keys that are there already stay. NULL and numbers that are none are left out.
static void set(json_t *object, const char *key, json_t *value)
{
    if (value && !json_object_get(object, key))
        json_object_set_new(object, key, value);
    else
        json_decref(value);
}

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : NULL;
}

json_t *nyb_point_new(const char *name, const nyb_compared *row, bool base)
{
    json_t *const p =
        json_pack("{s:s, s:o}", "schema", "nybble.point/1", "name", nyb_point_text(name));
    if (!p)
        return NULL;
    if (base)
        set(p, "base", json_true());
    set(p, "bytes", json_integer((json_int_t) row->bytes));
    set(p, "layer_bytes", json_integer((json_int_t) row->layer_bytes));
    set(p, "bits_per_weight", real(row->bits_per_weight));
    set(p, "loss", real(row->eval.loss));
    set(p, "perplexity", real(row->eval.perplexity));
    set(p, "kl", base ? NULL : real(row->kl));
    set(p, "top1", base ? NULL : real(row->top1));
    return p;
}

json_t *nyb_point_data(const nyb_eval_params *params, const nyb_eval_result *result)
{
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:b, s:I}", "text",
                     nyb_point_text(params->path), "activations",
                     nyb_activations_name(params->activations), "tokens",
                     (json_int_t) result->tokens, "windows", (json_int_t) result->windows, "window",
                     (json_int_t) params->window, "stride",
                     (json_int_t) (params->stride ? params->stride : params->window), "bos",
                     result->bos, "scored", (json_int_t) result->scored);
}

// ---- nybble_report.json ---------------------------------------------------------------------

// What a page shows of a layer.
static json_t *shown_layer(const json_t *layer)
{
    static const char *const keys[] = {"module",       "bits_per_weight", "tokens",
                                       "loss",         "pass_loss",       "rtn_loss",
                                       "output_error", "expert",          "routed_tokens"};
    json_t *const out = json_object();
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        json_t *const value = json_object_get(layer, keys[i]);
        if (value)
            json_object_set(out, keys[i], value);
    }
    return out;
}

// Settings that all layers share, and "mixed" for the others; without what only GPTQ reads where
// it was not used.
static json_t *shared_settings(const json_t *layers, const char *method)
{
    static const char *const keys[] = {
        "weight_bits", "group_size",    "symmetric",      "scale_search",  "range",
        "activations", "type",          "float8_type",    "float8_scales", "activation_order",
        "refine",      "static_groups", "hessian_damping"};
    enum { OF_GPTQ = 4, KEYS = sizeof(keys) / sizeof(keys[0]) }; // how many of them, at the end
    const bool gptq = method && (strcmp(method, "gptq") == 0 || strcmp(method, "mixed") == 0);
    json_t *const out = json_object();
    for (size_t k = 0; k < (gptq ? KEYS : KEYS - OF_GPTQ); k++) {
        size_t i;
        json_t *layer;
        json_array_foreach(layers, i, layer)
        {
            json_t *const value = json_object_get(layer, keys[k]);
            json_t *const before = json_object_get(out, keys[k]);
            if (value && !before)
                json_object_set(out, keys[k], value);
            else if (value && !json_equal(value, before))
                json_object_set_new(out, keys[k], json_string("mixed"));
        }
    }
    return out;
}

// The method that all layers share; NULL: they say nothing.
static const char *shared_method(const json_t *layers)
{
    const char *shared = NULL;
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        const char *const method = json_string_value(json_object_get(layer, "method"));
        if (!method || strcmp(method, "none") == 0)
            continue;
        if (shared && strcmp(shared, method) != 0)
            return "mixed";
        shared = method;
    }
    return shared;
}

static void add_report(json_t *point, const json_t *report)
{
    const json_t *const layers = json_object_get(report, "layers");
    const char *const method = shared_method(layers);
    json_t *const command = json_object_get(report, "command");
    json_t *const shown = json_array();
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer) json_array_append_new(shown, shown_layer(layer));
    set(point, "method", method ? json_string(method) : NULL);
    set(point, "settings", shared_settings(layers, method));
    set(point, "command", json_is_string(command) ? json_incref(command) : NULL);
    set(point, "layers", shown);
}

static nyb_status look_at_report(json_t *point, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    json_t *report = NULL;
    nyb_status status = NYB_OK;
    const char *const path = nyb_path_join(&arena, folder, NYB_REPORT_NAME);
    if (!path)
        status = nyb_no_memory(err, folder, 1, 1);
    else if (nyb_path_exists(path))
        status = nyb_json_load(&report, path, err);
    if (report)
        add_report(point, report);
    json_decref(report);
    nyb_arena_clear(&arena);
    return status;
}

// ---- The checkpoint -------------------------------------------------------------------------

static nyb_status look_at_weights(json_t *point, const nyb_model *model, nyb_err *err)
{
    json_t *histograms = NULL;
    const bool base = json_is_true(json_object_get(point, "base"));
    nyb_status status = NYB_OK;
    if (base) {
        status = nyb_histogram_weights(&histograms, model, err);
        set(point, "weights", histograms);
    }
    if (status == NYB_OK) {
        status = nyb_histogram_scales(&histograms, model, err);
        set(point, "scales", histograms);
    }
    set(point, "method",
        json_string(base ? "original" : nyb_quantization_method(nyb_model_quantization(model))));
    return status;
}

nyb_status nyb_point_look(const nyb_context *ctx, json_t *point, const char *folder, nyb_err *err)
{
    nyb_model *model = NULL;
    (void) ctx;
    nyb_status status = nyb_model_open(&model, folder, err);
    if (status == NYB_OK && nyb_path_is_folder(folder))
        status = look_at_report(point, folder, err);
    if (status == NYB_OK)
        status = look_at_weights(point, model, err);
    nyb_model_close(model);
    return status;
}

// ---- Texts ----------------------------------------------------------------------------------

typedef struct speech {
    nyb_tokens tokens;
    nyb_status status;
    nyb_err *err;
} speech;

static bool hear(void *user, uint32_t id)
{
    speech *const s = user;
    s->status = nyb_tokens_add(&s->tokens, id, s->err);
    return s->status == NYB_OK;
}

// What the new tokens add to the prompt's own text.
static nyb_status write_down(json_t *point, const nyb_tokenizer *tokenizer, const speech *s,
                             const char *prompt, size_t prompt_tokens)
{
    char *before = NULL, *after = NULL;
    size_t head = 0, length = 0;
    nyb_status status =
        nyb_tokenizer_decode(tokenizer, s->tokens.at, prompt_tokens, true, &before, &head, s->err);
    if (status == NYB_OK)
        status = nyb_tokenizer_decode(tokenizer, s->tokens.at, s->tokens.count, true, &after,
                                      &length, s->err);
    if (status == NYB_OK) {
        head = head < length ? head : length;
        set(point, "sample",
            json_pack("{s:o, s:o}", "prompt", nyb_point_text(prompt), "text",
                      json_stringn(after + head, length - head)));
    }
    nyb_text_free(before);
    nyb_text_free(after);
    return status;
}

static nyb_status speak(nyb_generator *generator, json_t *point, const nyb_tokenizer *tokenizer,
                        const char *prompt, const nyb_generate_params *params, nyb_err *err)
{
    speech s = {.err = err};
    nyb_status status =
        nyb_tokenizer_encode(tokenizer, prompt, strlen(prompt), true, &s.tokens, err);
    const size_t prompt_tokens = s.tokens.count;
    if (status == NYB_OK)
        status = nyb_generate(generator, s.tokens.at, prompt_tokens, params, hear, &s, NULL, err);
    if (status == NYB_OK)
        status = s.status;
    if (status == NYB_OK)
        status = write_down(point, tokenizer, &s, prompt, prompt_tokens);
    nyb_tokens_clear(&s.tokens);
    return status;
}

nyb_status nyb_point_speak(const nyb_context *ctx, json_t *point, const char *folder,
                           const char *prompt, size_t new_tokens, nyb_err *err)
{
    nyb_tokenizer *tokenizer = NULL;
    nyb_generator *generator = NULL;
    nyb_generate_params params = NYB_GENERATE_DEFAULTS;
    params.max_tokens = new_tokens;
    nyb_status status = nyb_tokenizer_open(&tokenizer, folder, NULL, err);
    if (status == NYB_OK)
        status = nyb_generator_open(&generator, ctx, folder, err);
    if (status == NYB_OK)
        status = speak(generator, point, tokenizer, prompt, &params, err);
    nyb_generator_close(generator);
    nyb_tokenizer_close(tokenizer);
    return status;
}
