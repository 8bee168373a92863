#include "nybble/calibrate.h"

#include <math.h>
#include <string.h>

#include "calib/observe.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"
#include "nybble/version.h"

static double range_of(const nyb_observer *o, nyb_range kind, double percentile)
{
    const nyb_range_params params = {.kind = kind, .percentile = percentile};
    return (double) nyb_observer_range(o, &params, (nyb_rounding_to){.top = 127.0f});
}

static json_t *describe_layer(const nyb_observer *o, size_t width, double percentile)
{
    return json_pack(
        "{s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "tokens", (json_int_t) (o->count / width), "min",
        (double) o->low, "max", (double) o->high, "absmax", range_of(o, NYB_RANGE_ABSMAX, 0.0),
        "percentile", range_of(o, NYB_RANGE_PERCENTILE, percentile), "mse",
        range_of(o, NYB_RANGE_MSE, 0.0), "entropy", range_of(o, NYB_RANGE_ENTROPY, 0.0));
}

static json_t *describe(const nyb_observed *observed, const nyb_calibrate_params *params,
                        nyb_calibrate_result *r)
{
    const nyb_model *const model = observed->model;
    json_t *const layers = json_object();
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; i < nyb_linear_count(model, b); i++, r->layers++) {
            const nyb_linear *const linear = nyb_linear_at(model, b, i);
            json_object_set_new(
                layers, linear->module,
                describe_layer(nyb_observed_of(observed, b, i), linear->cols, params->percentile));
        }
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:f, s:o}", "schema", "nybble.activations/1", "nybble",
                     nyb_version(), "samples", (json_int_t) r->samples, "tokens",
                     (json_int_t) r->tokens, "percentile",
                     params->percentile > 0.0 ? params->percentile : 99.99, "layers", layers);
}

static nyb_status calibrate(const nyb_context *ctx, nyb_model *model,
                            const nyb_calibrate_params *params, nyb_calibrate_result *r,
                            nyb_err *err)
{
    nyb_samples samples;
    nyb_observed observed;
    nyb_status status = nyb_samples_open(ctx, &samples, model, &params->samples, err);
    if (status != NYB_OK)
        return status;
    r->samples = samples.count;
    r->tokens = samples.counted;
    status = nyb_observe(ctx, &observed, model, &samples, err);
    if (status == NYB_OK) {
        json_t *const document = describe(&observed, params, r);
        status = document ? nyb_json_save(document, params->out, err)
                          : nyb_no_memory(err, "statistics", r->layers, 1);
        json_decref(document);
        nyb_observed_clear(&observed);
    }
    nyb_samples_close(&samples);
    return status;
}

nyb_status nyb_calibrate(const nyb_context *ctx, const nyb_calibrate_params *params,
                         nyb_calibrate_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_calibrate_result local = {0};
    nyb_model *model = NULL;
    if (params->percentile != 0.0 && !(params->percentile > 50.0 && params->percentile <= 100.0))
        return nyb_fail(err, NYB_E_ARG, "percentile is %g, want more than 50, at most 100",
                        params->percentile);
    if (params->samples.path_count == 0)
        return nyb_fail(err, NYB_E_ARG, "calibration needs data: give --calib FILE (text or ids)");
    if (nyb_path_exists(params->out) && !params->force)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it",
                        params->out);
    nyb_status status = nyb_samples_found(&params->samples, err);
    if (status == NYB_OK)
        status = nyb_model_open(&model, params->model, err);
    if (status == NYB_OK)
        status = calibrate(ctx, model, params, &local, err);
    nyb_model_close(model);
    local.seconds = nyb_seconds() - start;
    if (status == NYB_OK && result)
        *result = local;
    return status;
}
