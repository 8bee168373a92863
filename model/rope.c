#include "model/rope.h"

#include <math.h>
#include <string.h>

static nyb_status read_kind(nyb_rope_config *rope, const json_t *dict, const char *name,
                            nyb_err *err)
{
    static const char *const kinds[] = {"default", "linear", "llama3"};
    const char *text = "default";
    nyb_status status = nyb_json_text(dict, "type", &text, name, err);
    if (status == NYB_OK)
        status = nyb_json_text(dict, "rope_type", &text, name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(text, kinds[i]) == 0) {
            rope->kind = (nyb_rope_kind) i;
            return NYB_OK;
        }
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: rope type '%s' is not supported, default, linear and llama3 are", name,
                    text);
}

static nyb_status read_number(double *out, const json_t *dict, const char *key, const char *name,
                              nyb_err *err)
{
    *out = 0.0;
    const nyb_status status = nyb_json_real(dict, key, out, name, err);
    if (status != NYB_OK)
        return status;
    if (!(*out > 0.0 && *out <= 1e12))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' of the rope is %g, want a number above 0",
                        name, key, *out);
    return NYB_OK;
}

static nyb_status read_llama3(nyb_model_config *out, const json_t *doc, const json_t *dict,
                              const char *name, nyb_err *err)
{
    static const char key[] = "original_max_position_embeddings";
    nyb_rope_config *const rope = &out->rope;
    nyb_status status = read_number(&rope->low_freq, dict, "low_freq_factor", name, err);
    if (status == NYB_OK)
        status = read_number(&rope->high_freq, dict, "high_freq_factor", name, err);
    if (status != NYB_OK)
        return status;
    if (rope->low_freq >= rope->high_freq)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: 'low_freq_factor' is %g, want less than the 'high_freq_factor' %g",
                        name, rope->low_freq, rope->high_freq);

    // The configuration's own key comes before the one among the rope's.
    rope->original_positions = (double) out->positions;
    if (json_is_number(json_object_get(doc, key)))
        return read_number(&rope->original_positions, doc, key, name, err);
    if (json_object_get(dict, key))
        return read_number(&rope->original_positions, dict, key, name, err);
    return NYB_OK;
}

static nyb_status check_dict(const json_t *dict, const char *name, nyb_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(dict))
        return nyb_fail(err, NYB_E_FORMAT, "%s: the rope's settings are not an object", name);
    json_object_foreach((json_t *) (uintptr_t) dict, key, value)
    {
        if (json_is_object(value))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: rope settings for each kind of layer ('%s') are not supported",
                            name, key);
    }
    if (json_object_get(dict, "mrope_section"))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: 'mrope_section' of the rope is not supported",
                        name);
    return NYB_OK;
}

static nyb_status check_partial(const json_t *dict, const char *name, nyb_err *err)
{
    double part = 1.0;
    const nyb_status status = nyb_json_real(dict, "partial_rotary_factor", &part, name, err);
    if (status == NYB_OK && part != 1.0)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: 'partial_rotary_factor' is %g, only 1 is supported", name, part);
    return status;
}

static nyb_status read_dict(nyb_model_config *out, const json_t *doc, const json_t *dict,
                            const char *name, nyb_err *err)
{
    nyb_rope_config *const rope = &out->rope;
    nyb_status status = check_dict(dict, name, err);
    if (status == NYB_OK)
        status = check_partial(dict, name, err);
    if (status == NYB_OK)
        status = read_kind(rope, dict, name, err);
    if (status == NYB_OK && rope->kind != NYB_ROPE_DEFAULT)
        status = read_number(&rope->factor, dict, "factor", name, err);
    if (status == NYB_OK && rope->kind == NYB_ROPE_LLAMA3)
        status = read_llama3(out, doc, dict, name, err);
    return status;
}

static bool is_given(const json_t *dict)
{
    return dict && !json_is_null(dict) && !(json_is_object(dict) && json_object_size(dict) == 0);
}

nyb_status nyb_rope_config_read(nyb_model_config *out, const json_t *doc, const char *name,
                                nyb_err *err)
{
    // The older key wins where both are given, and the dictionary's theta over the one beside it.
    const json_t *const old = json_object_get(doc, "rope_scaling");
    const json_t *const dict = is_given(old) ? old : json_object_get(doc, "rope_parameters");
    nyb_status status = check_partial(doc, name, err);
    if (status == NYB_OK && is_given(dict))
        status = read_dict(out, doc, dict, name, err);
    if (status != NYB_OK)
        return status;

    const json_t *const inner = json_object_get(dict, "rope_theta");
    const json_t *const outer = json_object_get(doc, "rope_theta");
    out->rope.theta = 10000.0;
    if (inner && !json_is_null(inner))
        return read_number(&out->rope.theta, dict, "rope_theta", name, err);
    if (outer && !json_is_null(outer))
        return read_number(&out->rope.theta, doc, "rope_theta", name, err);
    return NYB_OK;
}

// Frequencies between the two wavelengths go smoothly from kept to divided by the factor.
static double llama3_frequency(const nyb_rope_config *rope, double frequency)
{
    const double wavelength = 2.0 * 3.14159265358979323846 / frequency;
    if (wavelength > rope->original_positions / rope->low_freq)
        return frequency / rope->factor;
    if (wavelength < rope->original_positions / rope->high_freq)
        return frequency;
    const double smooth = (rope->original_positions / wavelength - rope->low_freq) /
                          (rope->high_freq - rope->low_freq);
    return (1.0 - smooth) * frequency / rope->factor + smooth * frequency;
}

float nyb_rope_frequency(const nyb_model_config *config, size_t pair)
{
    const nyb_rope_config *const rope = &config->rope;
    // Models are trained with frequencies that were rounded to f32 on the way; so are these.
    const float exponent = (float) (2 * pair) / (float) config->head_dim;
    const float power = (float) pow(rope->theta, (double) exponent);
    const double frequency = (double) (1.0f / power);
    if (rope->kind == NYB_ROPE_LINEAR)
        return (float) (frequency / rope->factor);
    if (rope->kind == NYB_ROPE_LLAMA3)
        return (float) llama3_frequency(rope, frequency);
    return (float) frequency;
}

void nyb_rope_row(float *row, const float *frequencies, size_t half, size_t position)
{
    for (size_t i = 0; i < half; i++) {
        const float angle = (float) position * frequencies[i];
        row[i] = (float) cos((double) angle);
        row[half + i] = (float) sin((double) angle);
    }
}
