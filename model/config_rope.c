// Rotary positions in config.json: rope_parameters, or rope_scaling and rope_theta before it.
#include <math.h>
#include <string.h>

#include "model/config_parts.h"

typedef struct rope_reader {
    const nyb_config_reader *all;
    const json_t *dict; // NULL: none
    nyb_rope_config *out;
} rope_reader;

static nyb_status read_number(const rope_reader *r, double *out, const json_t *dict,
                              const char *key, nyb_err *err)
{
    *out = 0.0;
    const nyb_status status = nyb_json_real(dict, key, out, r->all->name, err);
    if (status == NYB_OK && !(*out > 0.0 && *out <= 1e12))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' of the rope is %g, want a number above 0",
                        r->all->name, key, *out);
    return status;
}

static bool has(const json_t *dict, const char *key)
{
    const json_t *const value = json_object_get(dict, key);
    return value && !json_is_null(value);
}

static const nyb_rope_name kinds[] = {
    {"default", NYB_ROPE_DEFAULT}, {"linear", NYB_ROPE_LINEAR}, {"llama3", NYB_ROPE_LLAMA3},
    {"dynamic", NYB_ROPE_DYNAMIC}, {"yarn", NYB_ROPE_YARN},     {"longrope", NYB_ROPE_LONGROPE},
    {"su", NYB_ROPE_LONGROPE},
};

const nyb_rope_name *nyb_rope_name_at(size_t index)
{
    return index < sizeof(kinds) / sizeof(kinds[0]) ? &kinds[index] : NULL;
}

static nyb_status read_kind(const rope_reader *r, nyb_err *err)
{
    const char *text = "default";
    nyb_status status = nyb_json_text(r->dict, "type", &text, r->all->name, err);
    if (status == NYB_OK)
        status = nyb_json_text(r->dict, "rope_type", &text, r->all->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(text, kinds[i].text) == 0) {
            r->out->kind = kinds[i].kind;
            return NYB_OK;
        }
    }
    nyb_misses_add(r->all->misses,
                   "rope type '%.60s' (default, linear, llama3, dynamic, yarn and longrope are)",
                   text);
    return NYB_OK;
}

static nyb_status check_dict(const rope_reader *r, nyb_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(r->dict))
        return nyb_fail(err, NYB_E_FORMAT, "%s: the rope's settings are not an object",
                        r->all->name);
    json_object_foreach((json_t *) (uintptr_t) r->dict, key, value)
    {
        if (json_is_object(value))
            nyb_misses_add(r->all->misses, "rope settings for layers of type '%.60s'", key);
    }
    if (has(r->dict, "mrope_section"))
        nyb_misses_add(r->all->misses, "'mrope_section' of the rope (positions in several axes)");
    return NYB_OK;
}

// How many of a head's elements turn.
static nyb_status read_dims(const rope_reader *r, nyb_err *err)
{
    const nyb_model_config *const c = r->all->out;
    const size_t whole = c->latent.kv_rank ? c->latent.turned : c->head_dim;
    const double usual = c->arch->rotary > 0.0 ? c->arch->rotary : 1.0;
    double part = usual;
    nyb_status status = nyb_json_real(r->all->doc, "rotary_pct", &part, r->all->name, err);
    if (status == NYB_OK)
        status = nyb_json_real(r->all->doc, "partial_rotary_factor", &part, r->all->name, err);
    if (status == NYB_OK)
        status = nyb_json_real(r->dict, "partial_rotary_factor", &part, r->all->name, err);
    if (status != NYB_OK)
        return status;
    if (!(part > 0.0 && part <= 1.0))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'partial_rotary_factor' is %g, want (0, 1]",
                        r->all->name, part);
    if (c->arch->rotary == 0.0 && part != 1.0)
        nyb_misses_add(r->all->misses, "'partial_rotary_factor' %g (1 is)", part);
    r->out->dims = (size_t) ((double) whole * part);
    if (r->out->dims % 2 != 0 || r->out->dims == 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: the head size is %zu, of which %zu are turned; rotary positions want "
                        "that even",
                        r->all->name, whole, r->out->dims);
    return NYB_OK;
}

// The configuration's own key comes before the one among the rope's.
static nyb_status read_original(const rope_reader *r, nyb_err *err)
{
    static const char key[] = "original_max_position_embeddings";
    r->out->original_positions = (double) r->all->out->positions;
    if (r->out->kind == NYB_ROPE_DYNAMIC)
        return NYB_OK;
    if (has(r->all->doc, key))
        return read_number(r, &r->out->original_positions, r->all->doc, key, err);
    if (has(r->dict, key))
        return read_number(r, &r->out->original_positions, r->dict, key, err);
    return NYB_OK;
}

static nyb_status read_llama3(const rope_reader *r, nyb_err *err)
{
    nyb_rope_config *const rope = r->out;
    nyb_status status = read_number(r, &rope->low_freq, r->dict, "low_freq_factor", err);
    if (status == NYB_OK)
        status = read_number(r, &rope->high_freq, r->dict, "high_freq_factor", err);
    if (status == NYB_OK && rope->low_freq >= rope->high_freq)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: 'low_freq_factor' is %g, want less than the 'high_freq_factor' %g",
                        r->all->name, rope->low_freq, rope->high_freq);
    return status;
}

static double yarn_magnitude(double factor, double scale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * scale * log(factor) + 1.0;
}

static nyb_status read_yarn(const rope_reader *r, nyb_err *err)
{
    nyb_rope_config *const rope = r->out;
    double scale = 0.0, scale_all = 0.0;
    rope->fast = 32.0;
    rope->slow = 1.0;
    rope->whole = true;
    nyb_status status = NYB_OK;
    if (has(r->dict, "beta_fast"))
        status = read_number(r, &rope->fast, r->dict, "beta_fast", err);
    if (status == NYB_OK && has(r->dict, "beta_slow"))
        status = read_number(r, &rope->slow, r->dict, "beta_slow", err);
    if (status == NYB_OK)
        status = nyb_json_bool(r->dict, "truncate", &rope->whole, r->all->name, err);
    if (status == NYB_OK)
        status = nyb_json_real(r->dict, "mscale", &scale, r->all->name, err);
    if (status == NYB_OK)
        status = nyb_json_real(r->dict, "mscale_all_dim", &scale_all, r->all->name, err);
    rope->magnitude = yarn_magnitude(rope->factor, 1.0);
    if (scale != 0.0 && scale_all != 0.0)
        rope->magnitude =
            yarn_magnitude(rope->factor, scale) / yarn_magnitude(rope->factor, scale_all);
    return status;
}

static nyb_status read_factors(const rope_reader *r, float *out, const char *key, nyb_err *err)
{
    const json_t *const list = json_object_get(r->dict, key);
    const size_t want = r->out->dims / 2;
    if (want > NYB_ROPE_FACTORS) {
        nyb_misses_add(r->all->misses, "'%s' for %zu pairs (at most %d are)", key, want,
                       NYB_ROPE_FACTORS);
        return NYB_OK;
    }
    if (!json_is_array(list) || json_array_size(list) != want)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has %zu factors, want %zu", r->all->name, key,
                        json_array_size(list), want);
    for (size_t i = 0; i < want; i++) {
        const double factor = json_number_value(json_array_get(list, i));
        if (!(factor > 0.0 && factor < 1e12))
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' holds %g, want numbers above 0",
                            r->all->name, key, factor);
        out[i] = (float) factor;
    }
    return NYB_OK;
}

static nyb_status read_longrope(const rope_reader *r, nyb_err *err)
{
    nyb_rope_config *const rope = r->out;
    const double factor = rope->factor, original = rope->original_positions;
    rope->magnitude = factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log(original));
    const nyb_status status = read_factors(r, rope->short_factors, "short_factor", err);
    return status == NYB_OK ? read_factors(r, rope->long_factors, "long_factor", err) : status;
}

// DeepSeek's scores take the magnitude that yarn gives to all dimensions, twice.
static nyb_status read_score_magnitude(const rope_reader *r, nyb_err *err)
{
    double scale_all = 0.0;
    const nyb_status status =
        nyb_json_real(r->dict, "mscale_all_dim", &scale_all, r->all->name, err);
    if (scale_all != 0.0) {
        const double magnitude = yarn_magnitude(r->out->factor, scale_all);
        r->out->score_magnitude = magnitude * magnitude;
    }
    return status;
}

static nyb_status read_scaling(const rope_reader *r, nyb_err *err)
{
    nyb_rope_config *const rope = r->out;
    const bool derived = rope->kind == NYB_ROPE_YARN || rope->kind == NYB_ROPE_LONGROPE;
    nyb_status status = read_original(r, err);
    if (status != NYB_OK)
        return status;
    if (derived && !has(r->dict, "factor"))
        rope->factor = (double) r->all->out->positions / rope->original_positions;
    else
        status = read_number(r, &rope->factor, r->dict, "factor", err);
    if (status == NYB_OK && rope->kind == NYB_ROPE_LLAMA3)
        status = read_llama3(r, err);
    if (status == NYB_OK && rope->kind == NYB_ROPE_YARN)
        status = read_yarn(r, err);
    if (status == NYB_OK && rope->kind == NYB_ROPE_LONGROPE)
        status = read_longrope(r, err);
    if (status == NYB_OK && derived && has(r->dict, "attention_factor"))
        status = read_number(r, &rope->magnitude, r->dict, "attention_factor", err);
    if (status == NYB_OK && rope->kind == NYB_ROPE_DYNAMIC && rope->dims <= 2)
        return nyb_fail(err, NYB_E_FORMAT, "%s: a dynamic rope wants more than 2 dimensions",
                        r->all->name);
    if (status == NYB_OK && r->all->out->latent.kv_rank)
        status = read_score_magnitude(r, err);
    return status;
}

// One rope from its dictionary (NULL: none), with `theta_key` of the configuration beside it.
static nyb_status read_rope(const nyb_config_reader *all, const json_t *dict, const char *theta_key,
                            double theta, nyb_err *err)
{
    const rope_reader r = {.all = all, .dict = dict, .out = &all->out->ropes[all->out->rope_count]};
    *r.out = (nyb_rope_config){.theta = theta, .magnitude = 1.0, .score_magnitude = 1.0};
    nyb_status status = dict ? check_dict(&r, err) : NYB_OK;
    if (status == NYB_OK)
        status = read_dims(&r, err);
    if (status == NYB_OK && has(dict, "rope_theta"))
        status = read_number(&r, &r.out->theta, dict, "rope_theta", err);
    else if (status == NYB_OK && has(all->doc, theta_key))
        status = read_number(&r, &r.out->theta, all->doc, theta_key, err);
    else if (status == NYB_OK && has(all->doc, "rotary_emb_base")) // GPT-NeoX's older name
        status = read_number(&r, &r.out->theta, all->doc, "rotary_emb_base", err);
    if (status == NYB_OK && dict)
        status = read_kind(&r, err);
    if (status == NYB_OK && r.out->kind != NYB_ROPE_DEFAULT)
        status = read_scaling(&r, err);
    all->out->rope_count++;
    return status;
}

static const json_t *given(const json_t *dict)
{
    const bool empty = json_is_null(dict) || (json_is_object(dict) && json_object_size(dict) == 0);
    return dict && !empty ? dict : NULL;
}

nyb_status nyb_config_rope_words(const nyb_config_reader *r, nyb_err *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    nyb_rope_config rope = {0};
    for (size_t i = 0; i < 2; i++) {
        const json_t *const dict = given(json_object_get(r->doc, keys[i]));
        const rope_reader reader = {.all = r, .dict = dict, .out = &rope};
        const nyb_status status = json_is_object(dict) ? read_kind(&reader, err) : NYB_OK;
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_config_ropes(const nyb_config_reader *r, nyb_err *err)
{
    const nyb_arch *const arch = r->out->arch;
    const double theta = arch->theta > 0.0 ? arch->theta : 10000.0;
    if (arch->positions != NYB_POSITIONS_ROPE || r->out->alibi)
        return NYB_OK;
    // The older key wins where both are given, and the dictionary's theta over the one beside it.
    const json_t *const old = given(json_object_get(r->doc, "rope_scaling"));
    const json_t *const dict = given(json_object_get(r->doc, "rope_parameters"));
    if (!arch->two_ropes)
        return read_rope(r, old ? old : dict, "rope_theta", theta, err);

    const json_t *const global = given(json_object_get(dict, "full_attention"));
    const json_t *const local = given(json_object_get(dict, "sliding_attention"));
    nyb_status status = read_rope(r,
                                  old               ? old
                                  : global || local ? global
                                                    : dict,
                                  "rope_theta", theta, err);
    if (status == NYB_OK)
        status = read_rope(r, local, "rope_local_base_freq", 10000.0, err);
    return status;
}
