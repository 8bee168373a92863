// The sections that go through a model's layers: their errors, the tokens of experts, and the
// ranges of their inputs.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "eval/report_page.h"

// ---- Values by kind and block ---------------------------------------------------------------

// One value for each series, kind and block: the mean over layers that share them (experts).
typedef struct field {
    size_t kinds, blocks, series;
    double *sums, *counts; // [series, kinds, blocks]
} field;

static nyb_status make_field(field *f, nyb_page *page, size_t blocks, size_t series)
{
    *f = (field){.kinds = page->data->kind_count, .blocks = blocks, .series = series};
    f->sums = nyb_arena_alloc(&page->data->arena, series * f->kinds * blocks, sizeof(double));
    f->counts = nyb_arena_alloc(&page->data->arena, series * f->kinds * blocks, sizeof(double));
    return f->sums && f->counts
               ? NYB_OK
               : nyb_no_memory(page->err, "layers", series * f->kinds, blocks * sizeof(double));
}

static void add_value(field *f, size_t series, size_t kind, size_t block, double value)
{
    const size_t at = (series * f->kinds + kind) * f->blocks + block;
    if (!isfinite(value))
        return;
    f->sums[at] += value;
    f->counts[at] += 1.0;
}

// Turns sums into means.
static nyb_extent finish_field(field *f)
{
    nyb_extent all = NYB_EXTENT_NONE;
    for (size_t i = 0; i < f->series * f->kinds * f->blocks; i++) {
        f->sums[i] = f->counts[i] > 0.0 ? f->sums[i] / f->counts[i] : (double) NAN;
        if (f->sums[i] > 0.0)
            nyb_extent_add(&all, f->sums[i]);
    }
    return all;
}

static bool has_kind(const field *f, size_t kind)
{
    for (size_t s = 0; s < f->series; s++) {
        for (size_t b = 0; b < f->blocks; b++) {
            if (isfinite(f->sums[(s * f->kinds + kind) * f->blocks + b]))
                return true;
        }
    }
    return false;
}

static bool has_series(const field *f, size_t series)
{
    for (size_t i = 0; i < f->kinds * f->blocks; i++) {
        if (isfinite(f->sums[series * f->kinds * f->blocks + i]))
            return true;
    }
    return false;
}

static void put_panels(nyb_page *page, field *f, const char *const *names)
{
    const nyb_extent all = finish_field(f);
    const char *shown[NYB_LINES_MAX] = {0};
    for (size_t s = 0; s < f->series; s++)
        shown[s] = has_series(f, s) ? names[s] : NULL;
    nyb_lines lines = {.series = f->series, .count = f->blocks};
    lines.y = nyb_axis_of(&all, true, 1.0, 0.0);
    nyb_chart_key(page->out, shown, f->series);
    nyb_markup_put(page->out, "<div class=\"panels\">\n");
    for (size_t k = 0; k < f->kinds; k++) {
        if (!has_kind(f, k))
            continue;
        lines.title = page->data->kinds[k].shown;
        for (size_t s = 0; s < f->series; s++) {
            lines.names[s] = names[s];
            lines.values[s] = f->sums + (s * f->kinds + k) * f->blocks;
        }
        nyb_chart_lines(page->out, &lines);
    }
    nyb_markup_put(page->out, "</div>\n");
}

// ---- Errors of layers -----------------------------------------------------------------------

static const char *const error_names[] = {"rounding to nearest", "GPTQ pass", "written", NULL};

static bool has_losses(const nyb_report_point *p)
{
    for (size_t i = 0; i < p->layer_count; i++) {
        if (isfinite(p->layers[i].loss))
            return true;
    }
    return false;
}

static bool has_experts(const nyb_report_point *p)
{
    for (size_t i = 0; i < p->layer_count; i++) {
        if (p->layers[i].expert && isfinite(p->layers[i].routed))
            return true;
    }
    return false;
}

bool nyb_page_has_layers(const nyb_page *page)
{
    for (size_t i = 0; i < page->data->point_count; i++) {
        if (has_losses(&page->data->points[i]) || has_experts(&page->data->points[i]))
            return true;
    }
    return false;
}

static size_t count_blocks(const nyb_report_point *p)
{
    size_t blocks = 1;
    for (size_t i = 0; i < p->layer_count; i++)
        blocks = p->layers[i].depth >= blocks ? p->layers[i].depth + 1 : blocks;
    return blocks;
}

// What turns a layer's loss into its share of the output's energy; NaN where that is not known.
static double share_of(const nyb_report_layer *layer)
{
    return layer->loss > 0.0 ? layer->error / layer->loss : (double) NAN;
}

static nyb_status put_errors(nyb_page *page, const nyb_report_point *p)
{
    field f;
    const nyb_arena_mark mark = nyb_arena_here(&page->data->arena);
    const nyb_status status = make_field(&f, page, count_blocks(p), 3);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < p->layer_count; i++) {
        const nyb_report_layer *const l = &p->layers[i];
        const double losses[] = {l->rtn_loss, l->pass_loss, l->loss};
        for (size_t s = 0; s < 3; s++)
            add_value(&f, s, l->kind, l->depth, losses[s] * share_of(l));
    }
    nyb_markup_put(page->out, "<figure><figcaption>Error of each layer's output, as a share of the "
                              "output's energy, by block</figcaption>\n");
    put_panels(page, &f, error_names);
    nyb_markup_put(page->out, "</figure>\n");
    nyb_arena_rewind(&page->data->arena, mark);
    return NYB_OK;
}

static void put_error_table(nyb_page *page, const nyb_report_point *p)
{
    static const char *const columns[] = {
        "layer",           "bits/weight",   "tokens",          "rounding: loss",
        "GPTQ pass: loss", "written: loss", "share of energy", NULL};
    nyb_bytes *const out = page->out;
    nyb_page_table(out, "Errors of layers as a table", p->name, columns, 1);
    for (size_t i = 0; i < p->layer_count; i++) {
        const nyb_report_layer *const l = &p->layers[i];
        nyb_page_row(out, l->module);
        nyb_markup_cell(out, l->bits, nyb_number_text);
        nyb_markup_cell(out, l->tokens, nyb_count_text);
        nyb_markup_cell(out, l->rtn_loss, nyb_number_text);
        nyb_markup_cell(out, l->pass_loss, nyb_number_text);
        nyb_markup_cell(out, l->loss, nyb_number_text);
        nyb_markup_cell(out, l->error, nyb_number_text);
        nyb_markup_put(out, "</tr>\n");
    }
    nyb_page_table_end(out);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

// The median over layers of what was written against the pass (which = 0) or plain rounding.
static double median_ratio(nyb_page *page, const nyb_report_point *p, bool rounding)
{
    const nyb_arena_mark mark = nyb_arena_here(&page->data->arena);
    double *const ratios = nyb_arena_alloc(&page->data->arena, p->layer_count + 1, sizeof(double));
    double median = (double) NAN;
    size_t count = 0;
    for (size_t i = 0; ratios && i < p->layer_count; i++) {
        const double other = rounding ? p->layers[i].rtn_loss : p->layers[i].pass_loss;
        if (p->layers[i].loss >= 0.0 && other > 0.0)
            ratios[count++] = p->layers[i].loss / other;
    }
    if (count > 0) {
        qsort(ratios, count, sizeof(*ratios), by_value);
        median = 0.5 * (ratios[count / 2] + ratios[(count - 1) / 2]);
    }
    nyb_arena_rewind(&page->data->arena, mark);
    return median;
}

static void put_medians(nyb_page *page, const nyb_report_point *p)
{
    char number[NYB_NUMBER_TEXT];
    const double rounding = median_ratio(page, p, true), pass = median_ratio(page, p, false);
    if (!isfinite(rounding))
        return;
    nyb_markup_format(page->out,
                      "<p class=\"note\">In the median over layers the loss is %s of "
                      "plain rounding's",
                      nyb_number_text(number, rounding));
    if (isfinite(pass))
        nyb_markup_format(page->out, " and %s of the GPTQ pass's", nyb_number_text(number, pass));
    nyb_markup_put(page->out, ".</p>\n");
}

// ---- Tokens of experts ----------------------------------------------------------------------

static nyb_status make_heat(nyb_heat *heat, nyb_page *page, const nyb_report_point *p)
{
    for (size_t i = 0; i < p->layer_count; i++) {
        const nyb_report_layer *const l = &p->layers[i];
        if (!l->expert)
            continue;
        heat->blocks = l->depth >= heat->blocks ? l->depth + 1 : heat->blocks;
        heat->experts = l->which >= heat->experts ? l->which + 1 : heat->experts;
    }
    double *const counts =
        nyb_arena_alloc(&page->data->arena, heat->blocks * heat->experts, sizeof(double));
    if (!counts)
        return nyb_no_memory(page->err, "experts", heat->blocks * heat->experts, sizeof(double));
    for (size_t i = 0; i < heat->blocks * heat->experts; i++)
        counts[i] = (double) NAN;
    for (size_t i = 0; i < p->layer_count; i++) {
        const nyb_report_layer *const l = &p->layers[i];
        if (l->expert)
            counts[l->depth * heat->experts + l->which] = l->routed;
    }
    heat->counts = counts;
    return NYB_OK;
}

static void put_heat(nyb_page *page, const nyb_heat *heat, double width)
{
    nyb_bytes inside = {0};
    const double height = nyb_chart_heat(&inside, heat, width);
    nyb_page_svg(page->out, &inside, width, height, "img",
                 "a square for each expert of each block, stronger with more tokens; the table has "
                 "the numbers");
}

static void put_heat_table(nyb_page *page, const nyb_report_point *p, const nyb_heat *heat)
{
    static const char *const columns[] = {"block", "expert", "tokens", NULL};
    nyb_bytes *const out = page->out;
    nyb_page_table(out, "Tokens of experts as a table", p->name, columns, 0);
    for (size_t i = 0; i < heat->blocks * heat->experts; i++) {
        if (!isfinite(heat->counts[i]))
            continue;
        nyb_markup_put(out, "<tr>");
        nyb_markup_cell(out, (double) (i / heat->experts), nyb_count_text);
        nyb_markup_cell(out, (double) (i % heat->experts), nyb_count_text);
        nyb_markup_cell(out, heat->counts[i], nyb_count_text);
        nyb_markup_put(out, "</tr>\n");
    }
    nyb_page_table_end(out);
}

// Whether the router sent the same tokens in both, as when one calibration served both.
static bool same_experts(const nyb_report_point *a, const nyb_report_point *b)
{
    bool same = a->layer_count == b->layer_count;
    for (size_t i = 0; same && i < a->layer_count; i++) {
        const nyb_report_layer *const x = &a->layers[i], *const y = &b->layers[i];
        same = x->expert == y->expert && x->which == y->which && x->depth == y->depth &&
               (!x->expert || x->routed == y->routed);
    }
    return same;
}

static nyb_status put_experts(nyb_page *page, const nyb_report_point *p,
                              const nyb_report_point *shown)
{
    nyb_heat heat = {0};
    if (p != shown && same_experts(p, shown)) {
        nyb_markup_put(page->out, "<p class=\"note\">Its experts got the same tokens as those of "
                                  "<bdi>");
        nyb_markup_text(page->out, shown->name);
        nyb_markup_put(page->out, "</bdi>.</p>\n");
        return NYB_OK;
    }
    const nyb_arena_mark mark = nyb_arena_here(&page->data->arena);
    const nyb_status status = make_heat(&heat, page, p);
    if (status != NYB_OK)
        return status;
    nyb_markup_put(page->out, "<figure><figcaption>Calibration tokens that the router sent to each "
                              "expert</figcaption>\n");
    put_heat(page, &heat, NYB_CHART_ALONE);
    put_heat(page, &heat, NYB_CHART_NARROW);
    nyb_markup_put(page->out, "</figure>\n");
    put_heat_table(page, p, &heat);
    nyb_arena_rewind(&page->data->arena, mark);
    return NYB_OK;
}

static nyb_status put_point(nyb_page *page, const nyb_report_point *p,
                            const nyb_report_point *shown)
{
    nyb_status status = NYB_OK;
    nyb_markup_put(page->out, p == shown ? "<details class=\"point\" open=\"open\"><summary><bdi>"
                                         : "<details class=\"point\"><summary><bdi>");
    nyb_markup_text(page->out, p->name);
    nyb_markup_put(page->out, "</bdi></summary>\n");
    if (has_losses(p)) {
        put_medians(page, p);
        status = put_errors(page, p);
        put_error_table(page, p);
    }
    if (status == NYB_OK && has_experts(p))
        status = put_experts(page, p, shown);
    nyb_markup_put(page->out, "</details>\n");
    return status;
}

// The point that is shown without a click: the first that has all there is to show.
static const nyb_report_point *first_shown(const nyb_page *page)
{
    const nyb_report_point *best = NULL;
    for (size_t i = 0; i < page->data->point_count; i++) {
        const nyb_report_point *const p = &page->data->points[i];
        for (size_t l = 0; l < p->layer_count; l++) {
            if (isfinite(p->layers[l].pass_loss))
                return p;
        }
        best = !best && (has_losses(p) || has_experts(p)) ? p : best;
    }
    return best;
}

nyb_status nyb_page_layers(nyb_page *page)
{
    nyb_status status = NYB_OK;
    if (!nyb_page_has_layers(page))
        return NYB_OK;
    const nyb_report_point *const shown = first_shown(page);
    nyb_page_section(page->out, "layers", "Layers");
    for (size_t i = 0; status == NYB_OK && i < page->data->point_count; i++) {
        const nyb_report_point *const p = &page->data->points[i];
        if (!has_losses(p) && !has_experts(p))
            continue;
        status = put_point(page, p, shown);
    }
    nyb_markup_put(page->out, "</section>\n");
    return status;
}

// ---- Ranges of activations ------------------------------------------------------------------

static void put_range_table(nyb_page *page)
{
    static const char *const columns[] = {"layer",       "tokens",           "least",
                                          "greatest",    "largest size",     "percentile",
                                          "least error", "least divergence", NULL};
    nyb_bytes *const out = page->out;
    nyb_page_table(out, "Ranges of inputs as a table", NULL, columns, 1);
    for (size_t i = 0; i < page->data->range_count; i++) {
        const nyb_report_range *const r = &page->data->ranges[i];
        nyb_page_row(out, r->module);
        nyb_markup_cell(out, r->tokens, nyb_count_text);
        nyb_markup_cell(out, r->low, nyb_number_text);
        nyb_markup_cell(out, r->high, nyb_number_text);
        for (size_t m = 0; m < NYB_RANGE_MEASURES; m++)
            nyb_markup_cell(out, r->sizes[m], nyb_number_text);
        nyb_markup_put(out, "</tr>\n");
    }
    nyb_page_table_end(out);
}

nyb_status nyb_page_ranges(nyb_page *page)
{
    const nyb_report_data *const data = page->data;
    char percentile[64], number[NYB_NUMBER_TEXT];
    size_t blocks = 1;
    field f;
    if (data->range_count == 0)
        return NYB_OK;
    for (size_t i = 0; i < data->range_count; i++)
        blocks = data->ranges[i].depth >= blocks ? data->ranges[i].depth + 1 : blocks;
    const nyb_status status = make_field(&f, page, blocks, NYB_RANGE_MEASURES);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < data->range_count; i++) {
        for (size_t m = 0; m < NYB_RANGE_MEASURES; m++)
            add_value(&f, m, data->ranges[i].kind, data->ranges[i].depth, data->ranges[i].sizes[m]);
    }
    (void) snprintf(percentile, sizeof(percentile), "%s %% are below",
                    nyb_exact_text(number, isnan(data->percentile) ? 99.99 : data->percentile));
    const char *const names[] = {"largest", percentile, "clipped for least squared error",
                                 "clipped for least divergence"};
    nyb_page_section(page->out, "ranges", "Ranges of activations");
    nyb_markup_put(page->out, "<figure><figcaption>Sizes of each layer's inputs, by "
                              "block</figcaption>\n");
    put_panels(page, &f, names);
    nyb_markup_put(page->out, "</figure>\n");
    put_range_table(page);
    nyb_markup_put(page->out, "</section>\n");
    return NYB_OK;
}
