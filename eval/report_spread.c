// The section of histograms: how weights and scales are spread.
#include "eval/report_page.h"

bool nyb_page_has_spread(const nyb_page *page)
{
    for (size_t i = 0; i < page->data->point_count; i++) {
        if (page->data->points[i].weight_count || page->data->points[i].scale_count)
            return true;
    }
    return false;
}

static void widen(nyb_bars *bars, const nyb_report_histogram *histograms, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bars->low = histograms[i].low < bars->low ? histograms[i].low : bars->low;
        bars->high = histograms[i].high > bars->high ? histograms[i].high : bars->high;
    }
}

static void put_bins(nyb_bytes *out, const char *name, const nyb_report_histogram *h)
{
    const double width = (h->high - h->low) / (double) h->bins;
    for (size_t i = 0; i < h->bins; i++) {
        if (h->counts[i] == 0.0)
            continue;
        nyb_page_row(out, name);
        nyb_markup_cell(out, h->low + width * (double) i, nyb_number_text);
        nyb_markup_cell(out, h->low + width * (double) (i + 1), nyb_number_text);
        nyb_markup_cell(out, h->counts[i], nyb_count_text);
        nyb_markup_put(out, "</tr>\n");
    }
}

static void put_weights(const nyb_page *page, const nyb_report_point *p)
{
    static const char *const columns[] = {"layers", "from", "to", "weights", NULL};
    nyb_bytes *const out = page->out;
    nyb_bars bars = {.series = 0, .low = 1e30, .high = -1e30, .log = true};
    widen(&bars, p->weights, p->weight_count);
    nyb_markup_put(out, "<figure><figcaption>Weights of <bdi>");
    nyb_markup_text(out, p->name);
    nyb_markup_put(out, "</bdi>: their shares, on a log scale, by value</figcaption>"
                        "<div class=\"panels\">\n");
    for (size_t i = 0; i < p->weight_count; i++) {
        bars.histogram = &p->weights[i];
        bars.title = p->weights[i].kind;
        nyb_chart_histogram(out, &bars);
    }
    nyb_markup_put(out, "</div></figure>\n");
    nyb_page_table(out, "Weights as a table", p->name, columns, 1);
    for (size_t i = 0; i < p->weight_count; i++)
        put_bins(out, p->weights[i].kind, &p->weights[i]);
    nyb_page_table_end(out);
}

static void put_scales(const nyb_page *page)
{
    static const char *const columns[] = {"checkpoint", "log2, from", "to", "scales", NULL};
    nyb_bytes *const out = page->out;
    const nyb_report_data *const data = page->data;
    nyb_bars bars = {.low = 1e30, .high = -1e30};
    for (size_t i = 0; i < data->point_count; i++)
        widen(&bars, data->points[i].scales, data->points[i].scale_count);
    if (bars.low > bars.high)
        return;
    nyb_markup_put(out, "<figure><figcaption>Scales of groups: their shares by log2 of the "
                        "scale</figcaption><div class=\"panels\">\n");
    for (size_t i = 0; i < data->point_count; i++) {
        const nyb_report_point *const p = &data->points[i];
        bars.series = p->series % NYB_CHART_COLOURS;
        for (size_t h = 0; h < p->scale_count; h++) {
            bars.histogram = &p->scales[h];
            bars.title = p->name;
            nyb_chart_histogram(out, &bars);
        }
    }
    nyb_markup_put(out, "</div></figure>\n");
    nyb_page_table(out, "Scales as a table", NULL, columns, 1);
    for (size_t i = 0; i < data->point_count; i++) {
        for (size_t h = 0; h < data->points[i].scale_count; h++)
            put_bins(out, data->points[i].name, &data->points[i].scales[h]);
    }
    nyb_page_table_end(out);
}

void nyb_page_spread(nyb_page *page)
{
    if (!nyb_page_has_spread(page))
        return;
    nyb_page_section(page->out, "spread", "Weights and scales");
    for (size_t i = 0; i < page->data->point_count; i++) {
        if (page->data->points[i].weight_count)
            put_weights(page, &page->data->points[i]);
    }
    put_scales(page);
    nyb_markup_put(page->out, "</section>\n");
}
