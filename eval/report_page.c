#include "eval/report_page.h"

#include <string.h>

#include "core/json.h"
#include "eval/report_style.h"
#include "nybble/version.h"

// ---- Parts ----------------------------------------------------------------------------------

void nyb_page_section(nyb_bytes *out, const char *id, const char *heading)
{
    nyb_markup_format(out, "<section id=\"%s\" aria-labelledby=\"%s-h\"><h2 id=\"%s-h\">%s</h2>\n",
                      id, id, id, heading);
}

void nyb_page_svg(nyb_bytes *out, nyb_bytes *inside, double width, double height, const char *role,
                  const char *label)
{
    nyb_markup_format(out,
                      "<svg class=\"%s\" viewBox=\"0 0 %.0f %.0f\" role=\"%s\" "
                      "aria-label=\"%s\">\n",
                      width < NYB_CHART_WIDE ? "narrow" : "wide", width, height, role, label);
    nyb_bytes_add(out, inside->at, inside->count);
    nyb_markup_put(out, "</svg>\n");
    out->failed = out->failed || inside->failed;
    nyb_bytes_clear(inside);
}

void nyb_page_table(nyb_bytes *out, const char *summary, const char *label,
                    const char *const *columns, size_t texts)
{
    nyb_markup_format(out,
                      "<details class=\"data\"><summary>%s</summary>"
                      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s",
                      summary, summary);
    if (label) {
        nyb_markup_put(out, ": ");
        nyb_markup_text(out, label);
    }
    nyb_markup_put(out, "\"><table><thead><tr>");
    for (size_t i = 0; columns[i]; i++)
        nyb_markup_format(out, "<th scope=\"col\"%s>%s</th>", i < texts ? "" : " class=\"n\"",
                          columns[i]);
    nyb_markup_put(out, "</tr></thead><tbody>\n");
}

void nyb_page_table_end(nyb_bytes *out)
{
    nyb_markup_put(out, "</tbody></table></div></details>\n");
}

void nyb_page_row(nyb_bytes *out, const char *text)
{
    nyb_markup_put(out, "<tr><th scope=\"row\"><bdi>");
    nyb_markup_text(out, text);
    nyb_markup_put(out, "</bdi></th>");
}

// ---- Head -----------------------------------------------------------------------------------

static void put_title(const nyb_page *page)
{
    const nyb_report_point *const base = nyb_report_base(page->data);
    if (page->title) {
        nyb_markup_text(page->out, page->title);
        return;
    }
    if (base && strcmp(base->name, "original") == 0) { // what a sweep calls it
        nyb_markup_put(page->out, "A model and its compressed checkpoints");
        return;
    }
    if (base) {
        nyb_markup_text(page->out, base->name);
        nyb_markup_put(page->out, " and its compressed checkpoints");
        return;
    }
    nyb_markup_put(page->out, page->data->point_count ? "Compressed checkpoints" : "Activations");
}

static void put_count(nyb_bytes *out, const json_t *scored, const char *key, const char *before)
{
    char number[NYB_NUMBER_TEXT];
    const json_t *const value = json_object_get(scored, key);
    if (json_is_integer(value))
        nyb_markup_format(out, "%s%s", before,
                          nyb_count_text(number, (double) json_integer_value(value)));
}

static void put_lead(const nyb_page *page)
{
    nyb_bytes *const out = page->out;
    const json_t *const scored = page->data->scored;
    const char *const text = json_string_value(json_object_get(scored, "text"));
    nyb_markup_put(out, "<p class=\"lead\">");
    if (scored) {
        nyb_markup_put(out, "Measured on ");
        nyb_markup_put(out, text ? "<bdi>" : "a text");
        nyb_markup_text(out, text ? text : "");
        nyb_markup_put(out, text ? "</bdi>" : "");
        put_count(out, scored, "scored", ", scored tokens: ");
        put_count(out, scored, "windows", ", windows: ");
        put_count(out, scored, "window", ", tokens in a window: ");
        nyb_markup_put(out, ".");
    }
    nyb_markup_put(out, " Every chart has its numbers in a table under it.</p>\n");
}

static void put_nav(const nyb_page *page)
{
    const nyb_report_data *const d = page->data;
    const struct {
        const char *id, *name;
        bool there;
    } parts[] = {
        {"accuracy", "Accuracy and size", d->point_count > 0},
        {"sizes", "Sizes", d->point_count > 0},
        {"layers", "Layers", nyb_page_has_layers(page)},
        {"spread", "Weights and scales", nyb_page_has_spread(page)},
        {"ranges", "Activations", d->range_count > 0},
        {"texts", "Texts", nyb_page_has_texts(page)},
        {"commands", "Commands", d->point_count > 0},
    };
    nyb_markup_put(page->out, "<nav aria-label=\"Sections\"><ul>");
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].there)
            nyb_markup_format(page->out, "<li><a href=\"#%s\">%s</a></li>", parts[i].id,
                              parts[i].name);
    }
    nyb_markup_put(page->out, "</ul></nav></header>\n");
}

static void put_head(const nyb_page *page)
{
    nyb_bytes *const out = page->out;
    // Nothing may be loaded from anywhere and no script may run, whatever a text manages.
    nyb_markup_put(out,
                   "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">"
                   "<head><meta charset=\"utf-8\"/>"
                   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                   "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
                   "form-action 'none'\"/>"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
                   "<meta name=\"color-scheme\" content=\"light dark\"/>"
                   "<link rel=\"icon\" href=\"data:,\"/>\n<title>");
    put_title(page);
    nyb_markup_put(out, "</title>\n<style>\n");
    nyb_markup_put(out, nyb_chart_style);
    nyb_markup_put(out, nyb_page_style);
    nyb_markup_put(out, "</style></head>\n<body><a class=\"skip\" href=\"#main\">Skip to the "
                        "results</a>\n<svg width=\"0\" height=\"0\" style=\"position:absolute\" "
                        "aria-hidden=\"true\">");
    nyb_chart_defs(out);
    nyb_markup_put(out, "</svg>\n<header><h1>");
    put_title(page);
    nyb_markup_put(out, "</h1>\n");
    put_lead(page);
    put_nav(page);
}

// ---- The whole ------------------------------------------------------------------------------

nyb_status nyb_page_write(nyb_page *page)
{
    nyb_status status = NYB_OK;
    put_head(page);
    nyb_markup_put(page->out, "<main id=\"main\" tabindex=\"-1\">\n");
    status = nyb_page_front(page);
    nyb_page_sizes(page);
    if (status == NYB_OK)
        status = nyb_page_layers(page);
    nyb_page_spread(page);
    if (status == NYB_OK)
        status = nyb_page_ranges(page);
    nyb_page_texts(page);
    nyb_page_commands(page);
    nyb_markup_format(page->out,
                      "</main>\n<footer>Made by nybble %s. Bits per weight count "
                      "everything that the linear layers inside the blocks take in the "
                      "files.</footer>\n</body></html>\n",
                      nyb_version());
    return status == NYB_OK ? nyb_bytes_status(page->out, page->err) : status;
}

nyb_status nyb_page_picture(nyb_page *page)
{
    nyb_bytes inside = {0};
    nyb_front front;
    double height = 0.0;
    const nyb_measure measure = NYB_MEASURE_PERPLEXITY;
    const nyb_front_params params = {.measure = measure, .width = NYB_CHART_ALONE, .alone = true};
    nyb_status status = nyb_front_of(&front, page->data, measure, page->err);
    if (status == NYB_OK && front.count == 0)
        status = nyb_fail(page->err, NYB_E_FORMAT,
                          "no record has both bits_per_weight and perplexity: there is no chart");
    if (status == NYB_OK)
        status = nyb_chart_front(&inside, page->data, &front, &params, &height, page->err);
    if (status == NYB_OK)
        status = nyb_bytes_status(&inside, page->err);
    if (status == NYB_OK) {
        nyb_markup_format(page->out,
                          "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" "
                          "width=\"%d\" height=\"%.0f\" role=\"img\"><title>",
                          NYB_CHART_ALONE, height, NYB_CHART_ALONE, height);
        put_title(page);
        nyb_markup_put(page->out, ": perplexity against bits per weight</title>\n<style>\n");
        nyb_markup_put(page->out, nyb_chart_style);
        nyb_markup_put(page->out, "svg{background:var(--card)}</style>\n");
        nyb_chart_defs(page->out);
        nyb_bytes_add(page->out, inside.at, inside.count);
        nyb_markup_put(page->out, "</svg>\n");
        status = nyb_bytes_status(page->out, page->err);
    }
    nyb_bytes_clear(&inside);
    return status;
}
