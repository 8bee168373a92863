#include <math.h>
#include <string.h>

#include "core/json.h"
#include "eval/report_data.h"

enum {
    BINS_MAX = 4096,
    HISTOGRAMS_MAX = 4096,
    EXPERTS_MAX = 1 << 12,
};

static const double biggest = 1e30; // of any number: what is drawn stays finite

typedef struct digest {
    nyb_report_data *data;
    const char *source; // of the record at hand
    nyb_err *err;
} digest;

static nyb_status wrong(const digest *d, const char *key, const char *want)
{
    return nyb_fail(d->err, NYB_E_FORMAT, "%s: '%s' is not %s", d->source, key, want);
}

static nyb_status out_of_memory(const digest *d)
{
    return nyb_no_memory(d->err, d->source, 1, 1);
}

static nyb_status read_real(const digest *d, const json_t *object, const char *key, double *out)
{
    *out = (double) NAN;
    const nyb_status status = nyb_json_real(object, key, out, d->source, d->err);
    if (status == NYB_OK && !isnan(*out) && !(fabs(*out) <= biggest))
        return wrong(d, key, "a number in [-1e30, 1e30]");
    return status;
}

typedef struct real_field {
    const char *key;
    double *out;
} real_field;

static nyb_status read_reals(const digest *d, const json_t *object, const real_field *fields,
                             size_t count)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = read_real(d, object, fields[i].key, fields[i].out);
    return status;
}

// A list in record[key]; NULL when it is not there.
static nyb_status read_list(const digest *d, const json_t *object, const char *key,
                            const json_t **out)
{
    *out = json_object_get(object, key);
    if (json_is_null(*out))
        *out = NULL;
    return !*out || json_is_array(*out) ? NYB_OK : wrong(d, key, "a list");
}

// ---- Layers ---------------------------------------------------------------------------------

static nyb_status read_layer(const digest *d, const json_t *object, nyb_report_layer *layer)
{
    double which = (double) NAN;
    const real_field fields[] = {
        {"loss", &layer->loss},
        {"pass_loss", &layer->pass_loss},
        {"rtn_loss", &layer->rtn_loss},
        {"output_error", &layer->error},
        {"bits_per_weight", &layer->bits},
        {"tokens", &layer->tokens},
        {"routed_tokens", &layer->routed},
        {"expert", &which},
    };
    nyb_status status = nyb_json_text(object, "module", &layer->module, d->source, d->err);
    if (status == NYB_OK && !layer->module)
        return wrong(d, "module", "there: a layer needs its name");
    if (status == NYB_OK)
        status = read_reals(d, object, fields, sizeof(fields) / sizeof(fields[0]));
    if (status != NYB_OK)
        return status;
    layer->expert = !isnan(which);
    if (layer->expert && !(which >= 0.0 && which < EXPERTS_MAX))
        return wrong(d, "expert", "a number of an expert");
    layer->which = layer->expert ? (size_t) which : 0;
    return nyb_report_place(d->data, layer->module, &layer->kind, &layer->depth, d->err);
}

static nyb_status read_layers(const digest *d, const json_t *record, nyb_report_point *point)
{
    const json_t *list = NULL;
    nyb_status status = read_list(d, record, "layers", &list);
    if (status != NYB_OK || !list)
        return status;
    nyb_report_layer *const layers =
        nyb_arena_alloc(&d->data->arena, json_array_size(list), sizeof(*layers));
    if (!layers)
        return out_of_memory(d);
    point->layers = layers;
    for (; status == NYB_OK && point->layer_count < json_array_size(list); point->layer_count++) {
        const json_t *const object = json_array_get(list, point->layer_count);
        status = json_is_object(object) ? read_layer(d, object, &layers[point->layer_count])
                                        : wrong(d, "layers", "a list of objects");
    }
    return status;
}

// ---- Histograms -----------------------------------------------------------------------------

static nyb_status read_counts(const digest *d, const json_t *list, nyb_report_histogram *h)
{
    h->bins = json_array_size(list);
    if (!json_is_array(list) || h->bins == 0 || h->bins > BINS_MAX)
        return wrong(d, "counts", "a list of 1 to 4096 numbers");
    double *const counts = nyb_arena_alloc(&d->data->arena, h->bins, sizeof(*counts));
    if (!counts)
        return out_of_memory(d);
    h->counts = counts;
    for (size_t i = 0; i < h->bins; i++) {
        counts[i] = json_number_value(json_array_get(list, i));
        if (!json_is_number(json_array_get(list, i)) || !(counts[i] >= 0.0) || counts[i] > biggest)
            return wrong(d, "counts", "a list of numbers in [0, 1e30]");
        h->total += counts[i];
    }
    return NYB_OK;
}

static nyb_status read_histogram(const digest *d, const json_t *object, nyb_report_histogram *h)
{
    const real_field fields[] = {{"low", &h->low}, {"high", &h->high}};
    nyb_status status = nyb_json_text(object, "kind", &h->kind, d->source, d->err);
    if (status == NYB_OK)
        status = read_reals(d, object, fields, 2);
    if (status == NYB_OK && (!h->kind || !(h->low < h->high)))
        return wrong(d, "kind", "there, or low is not below high");
    return status == NYB_OK ? read_counts(d, json_object_get(object, "counts"), h) : status;
}

static nyb_status read_histograms(const digest *d, const json_t *record, const char *key,
                                  const nyb_report_histogram **out, size_t *count)
{
    const json_t *list = NULL;
    nyb_status status = read_list(d, record, key, &list);
    if (status != NYB_OK || !list)
        return status;
    if (json_array_size(list) > HISTOGRAMS_MAX)
        return wrong(d, key, "a list of at most 4096 histograms");
    nyb_report_histogram *const all =
        nyb_arena_alloc(&d->data->arena, json_array_size(list), sizeof(*all));
    if (!all)
        return out_of_memory(d);
    *out = all;
    for (; status == NYB_OK && *count < json_array_size(list); *count += 1) {
        const json_t *const object = json_array_get(list, *count);
        status = json_is_object(object) ? read_histogram(d, object, &all[*count])
                                        : wrong(d, key, "a list of objects");
    }
    return status;
}

// ---- Points ---------------------------------------------------------------------------------

// What a series of points is called in the charts.
static const char *series_name(const json_t *record, const char *method)
{
    static const char *const names[][2] = {
        {"original", "original"}, {"rtn", "rounding to nearest"}, {"int4", "plain INT4"},
        {"int8", "plain INT8"},   {"float8", "8-bit floats"},     {"none", "not quantised"},
    };
    const json_t *const refine = json_object_get(json_object_get(record, "settings"), "refine");
    if (!method)
        return "unknown method";
    if (strcmp(method, "gptq") == 0 && json_is_integer(refine))
        return json_integer_value(refine) > 0 ? "GPTQ, refined" : "GPTQ, the pass alone";
    if (strcmp(method, "gptq") == 0)
        return "GPTQ";
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(method, names[i][0]) == 0)
            return names[i][1];
    }
    return method;
}

static size_t find_series(nyb_report_data *data, const char *name)
{
    size_t i = 0;
    while (i < data->series_count && strcmp(data->series[i], name) != 0)
        i++;
    if (i == data->series_count)
        data->series[data->series_count++] = name;
    return i;
}

static nyb_status read_series(const digest *d, const json_t *record, nyb_report_point *point)
{
    const char *label = NULL, *method = NULL;
    nyb_status status = nyb_json_text(record, "label", &label, d->source, d->err);
    if (status == NYB_OK)
        status = nyb_json_text(record, "method", &method, d->source, d->err);
    if (status == NYB_OK)
        status = nyb_json_bool(record, "base", &point->base, d->source, d->err);
    if (status == NYB_OK && !point->base)
        point->series = find_series(d->data, label ? label : series_name(record, method));
    return status;
}

static nyb_status read_sample(const digest *d, const json_t *record, nyb_report_point *point)
{
    const json_t *const sample = json_object_get(record, "sample");
    nyb_status status = nyb_json_text(sample, "prompt", &point->prompt, d->source, d->err);
    if (status == NYB_OK)
        status = nyb_json_text(sample, "text", &point->text, d->source, d->err);
    return status;
}

static nyb_status read_point(const digest *d, const json_t *record)
{
    nyb_report_point *const p = &d->data->points[d->data->point_count++];
    const real_field fields[] = {
        {"bits_per_weight", &p->bits},
        {"perplexity", &p->perplexity},
        {"loss", &p->loss},
        {"kl", &p->kl},
        {"top1", &p->top1},
        {"bytes", &p->bytes},
        {"seconds", &p->seconds},
        {"layer_bytes", &p->layer_bytes},
    };
    p->record = record;
    nyb_status status = nyb_json_text(record, "name", &p->name, d->source, d->err);
    if (status == NYB_OK && !p->name)
        return wrong(d, "name", "there: a point needs its name");
    if (status == NYB_OK)
        status = read_reals(d, record, fields, sizeof(fields) / sizeof(fields[0]));
    if (status == NYB_OK)
        status = nyb_json_text(record, "command", &p->command, d->source, d->err);
    if (status == NYB_OK)
        status = nyb_json_text(record, "calibrate", &p->calibrate, d->source, d->err);
    if (status == NYB_OK)
        status = read_series(d, record, p);
    if (status == NYB_OK)
        status = read_sample(d, record, p);
    if (status == NYB_OK)
        status = read_layers(d, record, p);
    if (status == NYB_OK)
        status = read_histograms(d, record, "weights", &p->weights, &p->weight_count);
    if (status == NYB_OK)
        status = read_histograms(d, record, "scales", &p->scales, &p->scale_count);
    if (status == NYB_OK && !d->data->scored && json_is_object(json_object_get(record, "data")))
        d->data->scored = json_object_get(record, "data");
    return status;
}

// ---- Ranges of activations ------------------------------------------------------------------

static nyb_status read_range(const digest *d, const json_t *object, nyb_report_range *range)
{
    const real_field fields[] = {
        {"min", &range->low},
        {"max", &range->high},
        {"tokens", &range->tokens},
        {"absmax", &range->sizes[0]},
        {"percentile", &range->sizes[1]},
        {"mse", &range->sizes[2]},
        {"entropy", &range->sizes[3]},
    };
    if (!json_is_object(object))
        return wrong(d, range->module, "an object");
    const nyb_status status = read_reals(d, object, fields, sizeof(fields) / sizeof(fields[0]));
    if (status != NYB_OK)
        return status;
    return nyb_report_place(d->data, range->module, &range->kind, &range->depth, d->err);
}

static nyb_status read_ranges(const digest *d, const json_t *record)
{
    json_t *const layers = json_object_get(record, "layers");
    if (!json_is_object(layers))
        return wrong(d, "layers", "an object");
    nyb_report_data *const data = d->data;
    data->ranges = nyb_arena_alloc(&data->arena, json_object_size(layers), sizeof(*data->ranges));
    if (!data->ranges)
        return out_of_memory(d);
    data->range_count = 0;
    nyb_status status = read_real(d, record, "percentile", &data->percentile);
    const char *module;
    json_t *object;
    json_object_foreach(layers, module, object)
    {
        nyb_report_range *const range = &data->ranges[data->range_count++];
        range->module = module;
        if (status == NYB_OK)
            status = read_range(d, object, range);
    }
    return status;
}

// ---- Records --------------------------------------------------------------------------------

static nyb_status read_record(digest *d, const json_t *record)
{
    const char *schema = NULL;
    if (!json_is_object(record))
        return nyb_fail(d->err, NYB_E_FORMAT, "%s: not an object", d->source);
    const nyb_status status = nyb_json_text(record, "schema", &schema, d->source, d->err);
    if (status != NYB_OK)
        return status;
    if (schema && strcmp(schema, "nybble.point/1") == 0)
        return read_point(d, record);
    if (schema && strcmp(schema, "nybble.activations/1") == 0)
        return read_ranges(d, record);
    return nyb_fail(
        d->err, NYB_E_FORMAT,
        "%s: schema '%.60s', want nybble.point/1 (of sweep, and of compare --points) or "
        "nybble.activations/1 (of calibrate)",
        d->source, schema ? schema : "none");
}

static nyb_status settle_base(nyb_report_data *data, nyb_err *err)
{
    size_t bases = 0;
    for (size_t i = 0; i < data->point_count; i++) {
        if (!data->points[i].base)
            continue;
        // Behind all others: the first colours are for what is drawn as points.
        data->points[i].series = find_series(data, "original");
        bases++;
    }
    if (bases > 1)
        return nyb_fail(err, NYB_E_FORMAT, "%zu records say that they are the base, want one",
                        bases);
    return NYB_OK;
}

nyb_status nyb_report_digest(nyb_report_data *data, nyb_err *err)
{
    const size_t count = json_array_size(data->records);
    digest d = {.data = data, .err = err};
    if (count == 0)
        return nyb_fail(err, NYB_E_FORMAT, "no record to make a page of");
    if (count > NYB_REPORT_POINTS)
        return nyb_fail(err, NYB_E_FORMAT, "%zu records, at most %d fit on a page", count,
                        NYB_REPORT_POINTS);
    data->points = nyb_arena_alloc(&data->arena, count, sizeof(*data->points));
    data->series = nyb_arena_alloc(&data->arena, count, sizeof(*data->series));
    if (!data->points || !data->series)
        return nyb_no_memory(err, "records", count, sizeof(*data->points));
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < count; i++) {
        d.source = json_string_value(json_array_get(data->sources, i));
        status = read_record(&d, json_array_get(data->records, i));
    }
    if (status == NYB_OK)
        status = settle_base(data, err);
    nyb_report_shorten(data);
    return status;
}
