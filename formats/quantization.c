#include "formats/quantization_rules.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "formats/layout_parts.h"

enum { MATCH_LIMIT = 100000 }; // steps of one pattern on one name: enough for any honest one

nyb_status nyb_rules_add(nyb_quantization *q, nyb_rule_kind kind, const char *text,
                         nyb_quantized answer, nyb_err *err)
{
    nyb_rule *const rule = nyb_arena_alloc(&q->arena, 1, sizeof(*rule));
    char *const copy = nyb_arena_text(&q->arena, text, strlen(text));
    if (!rule || !copy)
        return nyb_no_memory(err, q->name, 1, sizeof(*rule));
    *rule = (nyb_rule){.kind = kind, .text = copy, .answer = answer};
    if (kind == NYB_RULE_PATTERN) {
        int code = 0;
        PCRE2_SIZE at = 0;
        rule->pattern = pcre2_compile((PCRE2_SPTR) copy, PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
        if (!rule->pattern) {
            PCRE2_UCHAR reason[128] = {0};
            (void) pcre2_get_error_message(code, reason, sizeof(reason));
            return nyb_fail(err, NYB_E_FORMAT, "%s: the pattern '%s' is wrong at %zu: %s", q->name,
                            text, (size_t) at, (const char *) reason);
        }
    }
    *q->last = rule;
    q->last = &rule->next;
    return NYB_OK;
}

// Whether the pattern matches from the name's first character on.
static nyb_status match_pattern(bool *out, const nyb_quantization *q, const nyb_rule *rule,
                                const char *module, nyb_err *err)
{
    pcre2_match_context *const context = pcre2_match_context_create(NULL);
    pcre2_match_data *const found = pcre2_match_data_create(1, NULL);
    nyb_status status = NYB_OK;

    if (context && found) {
        (void) pcre2_set_match_limit(context, MATCH_LIMIT);
        const int code = pcre2_match(rule->pattern, (PCRE2_SPTR) module, PCRE2_ZERO_TERMINATED, 0,
                                     PCRE2_ANCHORED, found, context);
        *out = code >= 0;
        if (code < 0 && code != PCRE2_ERROR_NOMATCH)
            status = nyb_fail(err, NYB_E_FORMAT,
                              "%s: the pattern '%s' cannot be matched with '%s' (PCRE2 error %d)",
                              q->name, rule->text, module, code);
    } else {
        status = nyb_no_memory(err, q->name, 1, 1);
    }
    pcre2_match_data_free(found);
    pcre2_match_context_free(context);
    return status;
}

static bool ends_with_part(const char *module, const char *part)
{
    const size_t n = strlen(module), m = strlen(part);
    return n >= m && strcmp(module + n - m, part) == 0 && (n == m || module[n - m - 1] == '.');
}

static nyb_status match(bool *out, const nyb_quantization *q, const nyb_rule *rule,
                        const char *module, nyb_err *err)
{
    switch (rule->kind) {
    case NYB_RULE_NAME:
        *out = strcmp(rule->text, module) == 0;
        return NYB_OK;
    case NYB_RULE_PART:
        *out = ends_with_part(module, rule->text);
        return NYB_OK;
    case NYB_RULE_PATTERN:
        return match_pattern(out, q, rule, module, err);
    case NYB_RULE_ALL:
        break;
    }
    *out = true;
    return NYB_OK;
}

nyb_status nyb_quantization_of(nyb_quantized *out, const nyb_quantization *quantization,
                               const char *module, nyb_err *err)
{
    *out = (nyb_quantized){0};
    if (!quantization)
        return NYB_OK;
    for (const nyb_rule *rule = quantization->first; rule; rule = rule->next) {
        bool matches = false;
        const nyb_status status = match(&matches, quantization, rule, module, err);
        if (status != NYB_OK)
            return status;
        if (matches) {
            *out = rule->answer;
            return NYB_OK;
        }
    }
    return NYB_OK;
}

nyb_status nyb_quantization_find(nyb_quantized *out, const nyb_quantization *quantization,
                                 const nyb_checkpoint *file, const char *module, nyb_err *err)
{
    const nyb_status status = nyb_quantization_of(out, quantization, module, err);
    if (status != NYB_OK || !out->layout)
        return status;

    nyb_arena arena = {0};
    const char *const plain = nyb_arena_format(&arena, "%s.weight", module);
    const char *const packed = nyb_arena_format(&arena, "%s.%s", module, out->layout->marker);
    const nyb_tensor *const weight = plain ? nyb_checkpoint_find(file, plain) : NULL;
    const bool is_plain =
        weight && nyb_dtype_is_float(weight->dtype) && packed && !nyb_checkpoint_find(file, packed);
    nyb_arena_clear(&arena);
    if (!plain || !packed)
        return nyb_no_memory(err, module, strlen(module), 2);
    if (is_plain)
        *out = (nyb_quantized){0};
    return NYB_OK;
}

nyb_status nyb_quantization_input_scale(float *out, const nyb_checkpoint *file, const char *module,
                                        nyb_err *err)
{
    const nyb_layer layer = {file, module, err};
    const nyb_tensor *tensor = NULL;
    *out = 0.0f;
    const nyb_status status = nyb_layer_find(&tensor, &layer, "input_scale");
    if (status != NYB_OK || !tensor)
        return status;
    if (!nyb_dtype_is_float(tensor->dtype) || tensor->bytes != nyb_dtype_bytes(tensor->dtype))
        return nyb_layer_fail(&layer, tensor, NYB_E_FORMAT,
                              "is not one number of F32, F16 or BF16");
    nyb_widen(out, tensor->at, tensor->dtype, 1);
    if (isfinite(*out) && *out > 0.0f)
        return NYB_OK;
    return nyb_layer_fail(&layer, tensor, NYB_E_FORMAT, "is %g; it has to be above 0",
                          (double) *out);
}

nyb_status nyb_quantization_read(nyb_qweight *out, const nyb_quantization *quantization,
                                 const nyb_checkpoint *file, const char *module, size_t rows,
                                 size_t cols, nyb_err *err)
{
    nyb_quantized found;
    *out = (nyb_qweight){0};
    const nyb_status status = nyb_quantization_find(&found, quantization, file, module, err);
    if (status != NYB_OK)
        return status;
    if (!found.layout)
        return nyb_fail(err, NYB_E_ARG, "%s: layer '%s' is not quantised",
                        nyb_checkpoint_path(file), module);
    found.spec.rows = rows;
    found.spec.cols = cols;
    const nyb_status read = found.layout->unpack(out, file, module, &found.spec, err);
    if (read != NYB_OK)
        return read;
    const nyb_status scaled = nyb_quantization_input_scale(&out->input_scale, file, module, err);
    if (scaled != NYB_OK)
        nyb_qweight_clear(out);
    return scaled;
}

const char *nyb_quantization_method(const nyb_quantization *quantization)
{
    return quantization ? quantization->method : "none";
}

// ---- Opening --------------------------------------------------------------------------------

// Adding a method is one function that turns its configuration into rules, and one line here.
static const struct {
    nyb_quantization_named named;
    nyb_status (*read)(nyb_quantization *q, const json_t *config, nyb_err *err);
} readers[] = {
    {{"gptq", "checkpoint_format gptq or gptq_v2; 2, 3, 4 and 8 bits; desc_act; dynamic"},
     nyb_rules_of_gptq},
    {{"awq", "version gemm; 4 bits"}, nyb_rules_of_awq},
    {{"fp8", "e4m3 and e5m2; one scale for a tensor or for a block"}, nyb_rules_of_fp8},
    {{"compressed-tensors",
      "pack-quantized, int-quantized, float-quantized, mixed-precision of these"},
     nyb_rules_of_compressed_tensors},
    {{"nybble-blocks", NULL}, nyb_rules_of_blocks}, // on the way to a GGUF file
};

const nyb_quantization_named *nyb_quantization_method_at(size_t index)
{
    const bool there = index < sizeof(readers) / sizeof(readers[0]) && readers[index].named.about;
    return there ? &readers[index].named : NULL;
}

static nyb_status read_config(nyb_quantization *q, const json_t *config, nyb_err *err)
{
    const char *method = NULL;
    nyb_status status = nyb_json_text(config, "quant_method", &method, q->name, err);
    if (status != NYB_OK)
        return status;
    // The first writers of quantize_config.json named no method: it was always gptq.
    if (!method && json_object_get(config, "bits") && json_object_get(config, "group_size"))
        method = "gptq";
    if (!method)
        return nyb_fail(err, NYB_E_FORMAT, "%s: the quantization config names no 'quant_method'",
                        q->name);
    for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        if (strcmp(readers[i].named.method, method) == 0) {
            q->method = readers[i].named.method;
            return readers[i].read(q, config, err);
        }
    }
    return nyb_fail(
        err, NYB_E_UNSUPPORTED,
        "%s: weights are quantised by '%s'; nybble reads gptq, awq, fp8 and compressed-tensors",
        q->name, method);
}

static nyb_status open_config(nyb_quantization **out, const json_t *config, const char *name,
                              nyb_err *err)
{
    *out = NULL;
    if (!json_is_object(config))
        return nyb_fail(err, NYB_E_FORMAT, "%s: the quantization config is not an object", name);
    nyb_quantization *const q = nyb_alloc(1, sizeof(*q));
    if (!q)
        return nyb_no_memory(err, name, 1, sizeof(*q));
    q->last = &q->first;
    q->name = nyb_arena_text(&q->arena, name, strlen(name));
    const nyb_status status =
        q->name ? read_config(q, config, err) : nyb_no_memory(err, name, strlen(name), 1);
    if (status == NYB_OK)
        *out = q;
    else
        nyb_quantization_close(q);
    return status;
}

nyb_status nyb_quantization_open(nyb_quantization **out, const json_t *config, const char *name,
                                 nyb_err *err)
{
    *out = NULL;
    const json_t *section = json_object_get(config, "quantization_config");
    // Where the library's older name of the section is still in use.
    if (!section || json_is_null(section))
        section = json_object_get(config, "compression_config");
    if (!section || json_is_null(section))
        return NYB_OK;
    return open_config(out, section, name, err);
}

// What `path` says, when it exists. *found tells whether it says anything.
static nyb_status load(nyb_quantization **out, const char *path, bool whole, nyb_err *err)
{
    json_t *document = NULL;
    if (!nyb_path_exists(path))
        return NYB_OK;
    nyb_status status = nyb_json_load(&document, path, err);
    if (status != NYB_OK)
        return status;
    status = whole ? open_config(out, document, path, err)
                   : nyb_quantization_open(out, document, path, err);
    json_decref(document);
    return status;
}

nyb_status nyb_quantization_load(nyb_quantization **out, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    *out = NULL;
    const char *const config = nyb_path_join(&arena, folder, "config.json");
    const char *const separate = nyb_path_join(&arena, folder, "quantize_config.json");
    nyb_status status = config && separate ? load(out, config, false, err)
                                           : nyb_no_memory(err, folder, strlen(folder), 2);
    if (status == NYB_OK && !*out)
        status = load(out, separate, true, err);
    nyb_arena_clear(&arena);
    return status;
}

void nyb_quantization_close(nyb_quantization *quantization)
{
    if (!quantization)
        return;
    for (nyb_rule *rule = quantization->first; rule; rule = rule->next)
        pcre2_code_free(rule->pattern);
    nyb_arena_clear(&quantization->arena);
    nyb_free(quantization);
}
