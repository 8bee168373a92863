// The quantization_config of GPTQ checkpoints. Its top level describes most layers; those that
// differ, or stay as they are, are listed by pattern in `dynamic`.
#include <string.h>

#include "formats/layout_parts.h"
#include "nybble/version.h"

// The settings that most quantised modules have; the first such settings win a draw.
static nyb_layout_spec most_common(const nyb_layout_run *run)
{
    nyb_layout_spec best = {.bits = 4, .symmetric = true};
    size_t best_count = 0;

    for (size_t i = 0; i < run->count; i++) {
        const nyb_layout_module *const module = &run->modules[i];
        if (!module->quantized || (best_count && nyb_layout_same_settings(&module->spec, &best)))
            continue;
        size_t count = 0;
        for (size_t k = i; k < run->count; k++)
            count += run->modules[k].quantized &&
                     nyb_layout_same_settings(&run->modules[k].spec, &module->spec);
        if (count > best_count) {
            best = module->spec;
            best_count = count;
        }
    }
    return best;
}

// "<prefix>^name$" with the characters that a pattern would interpret escaped.
static const char *pattern(nyb_arena *arena, const char *prefix, const char *name)
{
    char *const out = nyb_arena_alloc(arena, strlen(prefix) + 2 * strlen(name) + 3, 1);
    if (!out)
        return NULL;
    char *to = out;
    for (; *prefix; prefix++)
        *to++ = *prefix;
    *to++ = '^';
    for (; *name; name++) {
        if (strchr(".^$*+?()[]{}|\\", *name))
            *to++ = '\\';
        *to++ = *name;
    }
    *to = '$';
    return out;
}

static json_int_t group_value(const nyb_layout_spec *spec)
{
    return spec->group_size ? (json_int_t) spec->group_size : -1;
}

static json_t *override_of(const nyb_layout_spec *spec)
{
    return json_pack("{s:I, s:I, s:b, s:b}", "bits", (json_int_t) spec->bits, "group_size",
                     group_value(spec), "sym", spec->symmetric, "desc_act", spec->irregular);
}

static bool is_head(const char *name)
{
    const char *const dot = strrchr(name, '.');
    return strcmp(dot ? dot + 1 : name, "lm_head") == 0;
}

// Readers leave the head alone unless "lm_head" is true, so an unquantised one needs no pattern.
static bool add_override(json_t *dynamic, nyb_arena *arena, const nyb_layout_module *module,
                         const nyb_layout_spec *base)
{
    if (!module->quantized && is_head(module->name))
        return true;
    if (module->quantized && nyb_layout_same_settings(&module->spec, base))
        return true;
    const char *const key = pattern(arena, module->quantized ? "+:" : "-:", module->name);
    return key &&
           json_object_set_new(dynamic, key,
                               module->quantized ? override_of(&module->spec) : json_object()) == 0;
}

static json_t *make_dynamic(const nyb_layout_run *run, const nyb_layout_spec *base)
{
    nyb_arena arena = {0};
    json_t *dynamic = json_object();
    bool good = dynamic != NULL;

    for (size_t i = 0; i < run->count && good; i++)
        good = add_override(dynamic, &arena, &run->modules[i], base);
    nyb_arena_clear(&arena);
    if (good)
        return dynamic;
    json_decref(dynamic);
    return NULL;
}

static json_t *make_meta(const nyb_layout_run *run)
{
    nyb_arena arena = {0};
    const char *const maker = nyb_arena_format(&arena, "nybble:%s", nyb_version());
    json_t *const meta =
        maker ? json_pack("{s:[s], s:f, s:b, s:b, s:b}", "quantizer", maker, "damp_percent",
                          run->damp, "true_sequential", run->true_sequential, "static_groups",
                          run->static_groups, "act_group_aware", run->group_aware_order)
              : NULL;
    nyb_arena_clear(&arena);
    return meta;
}

static bool head_is_quantized(const nyb_layout_run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        if (run->modules[i].quantized && is_head(run->modules[i].name))
            return true;
    }
    return false;
}

static json_t *make_config(const nyb_layout_run *run, const char *format)
{
    const nyb_layout_spec base = most_common(run);
    json_t *const config = json_pack(
        "{s:s, s:I, s:I, s:b, s:b, s:b, s:s, s:s, s:s, s:s}", "quant_method", "gptq", "bits",
        (json_int_t) base.bits, "group_size", group_value(&base), "desc_act", base.irregular, "sym",
        base.symmetric, "lm_head", head_is_quantized(run), "checkpoint_format", format, "format",
        format, "method", "gptq", "pack_dtype", "int32");
    json_t *const dynamic = make_dynamic(run, &base);
    json_t *const meta = make_meta(run);

    bool good = config && dynamic && meta;
    if (good && json_object_size(dynamic) > 0)
        good = json_object_set(config, "dynamic", dynamic) == 0;
    good = good && json_object_set(config, "meta", meta) == 0;
    json_decref(dynamic);
    json_decref(meta);
    if (good)
        return config;
    json_decref(config);
    return NULL;
}

json_t *nyb_layout_gptq_config(const nyb_layout_run *run)
{
    return make_config(run, "gptq");
}

json_t *nyb_layout_gptq_v2_config(const nyb_layout_run *run)
{
    return make_config(run, "gptq_v2");
}
