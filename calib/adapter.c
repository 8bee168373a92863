#include "calib/adapter.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "model/pattern.h"

#define CONFIG_NAME  "adapter_config.json"
#define TENSORS_NAME "adapter_model.safetensors"

// ---- Settings -------------------------------------------------------------------------------

// Settings that are read here, or that say nothing about what a finished adapter is.
static const char *const known[] = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
};

static bool is_known(const char *key)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i], key) == 0)
            return true;
    }
    return false;
}

static bool is_set(const json_t *value)
{
    if (json_is_array(value))
        return json_array_size(value) > 0;
    if (json_is_object(value))
        return json_object_size(value) > 0;
    if (json_is_string(value))
        return json_string_length(value) > 0;
    if (json_is_number(value))
        return json_number_value(value) != 0.0;
    return json_is_true(value);
}

// Some ways to begin change the base's weights, and the adapter counts from those.
static nyb_status check_start(const nyb_adapter *a, nyb_err *err)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal"};
    const json_t *const value = json_object_get(a->config, "init_lora_weights");
    const char *const word = json_string_value(value);
    if (!word)
        return NYB_OK;
    for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++) {
        if (strcmp(harmless[i], word) == 0)
            return NYB_OK;
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: init_lora_weights '%s' can change the base's weights when training "
                    "begins; save the adapter as plain LoRA first",
                    a->folder, word);
}

static nyb_status check_config(const nyb_adapter *a, nyb_err *err)
{
    const char *kind = NULL, *key = NULL;
    json_t *value = NULL;
    nyb_status status = nyb_json_text(a->config, "peft_type", &kind, a->folder, err);
    if (status != NYB_OK)
        return status;
    if (!kind || strcmp(kind, "LORA") != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: the adapter is of type '%s'; nybble merges LORA", a->folder,
                        kind ? kind : "unknown");
    json_object_foreach(a->config, key, value)
    {
        if (!is_known(key) && is_set(value))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: " CONFIG_NAME " sets '%s', which nybble does not merge; merge it "
                            "with PEFT",
                            a->folder, key);
    }
    return check_start(a, err);
}

// Whether a module's name is, or ends in, what the pattern describes.
static nyb_status matches(bool *out, const char *key, const char *module, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_pattern *pattern = NULL;
    nyb_matcher *matcher = NULL;
    nyb_ranges found = {0};
    const char *const text = nyb_arena_format(&arena, "\\A(?:.*\\.)?(?:%s)\\z", key);
    nyb_status status = text ? nyb_pattern_regex(&pattern, text, strlen(text), err)
                             : nyb_no_memory(err, key, strlen(key), 1);
    if (status == NYB_OK)
        status = nyb_matcher_new(&matcher, err);
    if (status == NYB_OK)
        status = nyb_pattern_find(pattern, matcher, module, strlen(module), &found, err);
    *out = false;
    for (size_t i = 0; status == NYB_OK && i < found.count; i++)
        *out = *out || found.at[i].flag;
    nyb_ranges_clear(&found);
    nyb_matcher_free(matcher);
    nyb_pattern_free(pattern);
    nyb_arena_clear(&arena);
    return status;
}

// The setting `name`, or what the first pattern of `patterns` that fits the module says instead.
static nyb_status setting_of(double *out, const nyb_adapter *a, const char *name,
                             const char *patterns, const char *module, nyb_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    *out = 8.0; // what PEFT takes where nothing is said
    nyb_status status = nyb_json_real(a->config, name, out, a->folder, err);
    json_object_foreach(json_object_get(a->config, patterns), key, value)
    {
        bool fits = false;
        if (status == NYB_OK)
            status = matches(&fits, key, module, err);
        if (status != NYB_OK)
            return status;
        if (!fits)
            continue;
        if (!json_is_number(value))
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' of '%s' is no number", a->folder, patterns,
                            key);
        *out = json_number_value(value);
        return NYB_OK;
    }
    return status;
}

static nyb_status set_scaling(nyb_lora *lora, const nyb_adapter *a, nyb_err *err)
{
    double alpha = 0.0, rank = 0.0;
    bool root = false;
    nyb_status status = setting_of(&alpha, a, "lora_alpha", "alpha_pattern", lora->module, err);
    if (status == NYB_OK)
        status = setting_of(&rank, a, "r", "rank_pattern", lora->module, err);
    if (status == NYB_OK)
        status = nyb_json_bool(a->config, "use_rslora", &root, a->folder, err);
    if (status != NYB_OK)
        return status;
    if (rank != (double) lora->rank)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: '%s' has %zu rows, and " CONFIG_NAME " gives the module the rank %g",
                        a->folder, lora->a->name, lora->rank, rank);
    lora->scaling = alpha / (root ? sqrt(rank) : rank);
    return NYB_OK;
}

// ---- Tensors --------------------------------------------------------------------------------

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

// A name without a part of it, which PEFT put there.
static char *without(nyb_arena *arena, const char *name, const char *part)
{
    const char *const at = strstr(name, part);
    if (!at)
        return nyb_arena_text(arena, name, strlen(name));
    return nyb_arena_format(arena, "%.*s%s", (int) (at - name), name, at + strlen(part));
}

static nyb_status check_values(const nyb_adapter *a, const nyb_tensor *t, nyb_err *err)
{
    if (!nyb_dtype_is_float(t->dtype))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: '%s' is %s, supported are F32, F16 and BF16",
                        a->folder, t->name, nyb_dtype_name(t->dtype));
    const size_t size = nyb_dtype_bytes(t->dtype);
    for (size_t i = 0; i < t->bytes / size; i++) {
        float value;
        nyb_widen(&value, (const unsigned char *) t->at + i * size, t->dtype, 1);
        if (!isfinite(value))
            return nyb_fail(err, NYB_E_NUMERIC, "%s: '%s' holds %g at element %zu", a->folder,
                            t->name, (double) value, i);
    }
    return NYB_OK;
}

static nyb_status add_lora(nyb_adapter *a, const char *name, const nyb_tensor *t, nyb_err *err)
{
    static const char suffix[] = ".lora_A.weight";
    const size_t length = strlen(t->name) - strlen(suffix);
    nyb_lora *const lora = &a->loras[a->lora_count];
    const char *const other =
        nyb_arena_format(&a->arena, "%.*s.lora_B.weight", (int) length, t->name);
    lora->module = nyb_arena_text(&a->arena, name, strlen(name) - strlen(suffix));
    if (!other || !lora->module)
        return nyb_no_memory(err, t->name, length, 2);
    lora->a = t;
    lora->b = nyb_checkpoint_find(a->file, other);
    if (!lora->b)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has no '%s' beside it", a->folder, t->name,
                        other);
    if (t->rank != 2 || lora->b->rank != 2 || t->shape[0] != lora->b->shape[1] || t->bytes == 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: '%s' and '%s' are no matrices whose product exists", a->folder,
                        t->name, other);
    lora->rank = t->shape[0];
    a->lora_count++;
    return set_scaling(lora, a, err);
}

static nyb_status add_tensor(nyb_adapter *a, const nyb_tensor *t, nyb_err *err)
{
    static const char prefix[] = "base_model.model.";
    const char *name =
        t->name + (strncmp(t->name, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0);
    const nyb_status status = check_values(a, t, err);
    if (status != NYB_OK)
        return status;
    if (ends_with(name, ".lora_A.weight"))
        return add_lora(a, name, t, err);
    if (ends_with(name, ".lora_B.weight")) {
        const char *const other =
            nyb_arena_format(&a->arena, "%.*s.lora_A.weight",
                             (int) (strlen(t->name) - strlen(".lora_B.weight")), t->name);
        if (!other || !nyb_checkpoint_find(a->file, other))
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has no lora_A beside it", a->folder,
                            t->name);
        return NYB_OK;
    }
    if (strstr(name, "lora_"))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: nybble does not merge '%s', only lora_A and lora_B of linear layers; "
                        "merge it with PEFT",
                        a->folder, t->name);
    name = without(&a->arena, name, "modules_to_save.");
    name = name ? without(&a->arena, name, "base_layer.") : NULL;
    if (!name)
        return nyb_no_memory(err, t->name, strlen(t->name), 1);
    a->saved[a->saved_count++] = (nyb_saved){.name = name, .tensor = t};
    return NYB_OK;
}

static nyb_status read_tensors(nyb_adapter *a, nyb_err *err)
{
    const size_t count = nyb_checkpoint_count(a->file);
    a->loras = nyb_arena_alloc(&a->arena, count, sizeof(*a->loras));
    a->saved = nyb_arena_alloc(&a->arena, count, sizeof(*a->saved));
    if (!a->loras || !a->saved)
        return nyb_no_memory(err, a->folder, count, sizeof(*a->loras));
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = add_tensor(a, nyb_checkpoint_at(a->file, i), err);
    if (status == NYB_OK && a->lora_count + a->saved_count == 0)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: the adapter holds no tensors", a->folder);
    return status;
}

// ---- Opening --------------------------------------------------------------------------------

static nyb_status open_all(nyb_adapter *a, const char *folder, nyb_err *err)
{
    a->folder = nyb_arena_text(&a->arena, folder, strlen(folder));
    const char *const config = nyb_path_join(&a->arena, folder, CONFIG_NAME);
    const char *const tensors = nyb_path_join(&a->arena, folder, TENSORS_NAME);
    if (!a->folder || !config || !tensors)
        return nyb_no_memory(err, folder, strlen(folder), 2);
    nyb_status status = nyb_json_load(&a->config, config, err);
    if (status == NYB_OK && !json_is_object(a->config))
        status = nyb_fail(err, NYB_E_FORMAT, "%s: not a JSON object", config);
    if (status == NYB_OK)
        status = check_config(a, err);
    if (status == NYB_OK && !nyb_path_exists(tensors))
        status = nyb_fail(err, NYB_E_IO,
                          "%s: has no " TENSORS_NAME "; adapters in pickle files (.bin) are not "
                          "read: save it with PEFT as safetensors",
                          folder);
    if (status == NYB_OK)
        status = nyb_checkpoint_open(&a->file, tensors, err);
    return status == NYB_OK ? read_tensors(a, err) : status;
}

nyb_status nyb_adapter_open(nyb_adapter *out, const char *folder, nyb_err *err)
{
    *out = (nyb_adapter){0};
    const nyb_status status = open_all(out, folder, err);
    if (status != NYB_OK)
        nyb_adapter_close(out);
    return status;
}

void nyb_adapter_close(nyb_adapter *adapter)
{
    json_decref(adapter->config);
    nyb_checkpoint_close(adapter->file);
    nyb_arena_clear(&adapter->arena);
    *adapter = (nyb_adapter){0};
}
