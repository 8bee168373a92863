// The sections that tell about points as a whole.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "eval/report_page.h"
#include "model/unicode.h"

// ---- Accuracy against size ------------------------------------------------------------------

static nyb_status put_front(nyb_page *page, const nyb_front *front, nyb_measure measure,
                            double width)
{
    nyb_bytes inside = {0};
    double height = 0.0;
    char label[128];
    const nyb_front_params params = {.measure = measure, .width = width};
    const nyb_status status =
        nyb_chart_front(&inside, page->data, front, &params, &height, page->err);
    (void) snprintf(label, sizeof(label),
                    "%s against bits per weight, %zu points in the order of bits",
                    nyb_measure_name(measure), front->count);
    nyb_page_svg(page->out, &inside, width, height, "group", label);
    return status;
}

static nyb_status put_measure(nyb_page *page, nyb_measure measure)
{
    nyb_front front;
    nyb_status status = nyb_front_of(&front, page->data, measure, page->err);
    if (status != NYB_OK || front.count == 0)
        return status;
    nyb_markup_format(page->out, "<figure><figcaption>%s</figcaption>\n",
                      measure == NYB_MEASURE_KL ? "Divergence from the original"
                                                : "Perplexity against size");
    status = put_front(page, &front, measure, NYB_CHART_WIDE);
    if (status == NYB_OK)
        status = put_front(page, &front, measure, NYB_CHART_NARROW);
    nyb_markup_put(page->out, "</figure>\n");
    return status;
}

static bool any_has(const nyb_report_data *data, nyb_measure measure)
{
    for (size_t i = 0; i < data->point_count; i++) {
        if (nyb_front_has(&data->points[i], measure))
            return true;
    }
    return false;
}

static void put_series(nyb_bytes *out, const nyb_report_data *data, size_t series)
{
    nyb_markup_put(out, "<td><bdi>");
    nyb_markup_text(out, data->series[series]);
    nyb_markup_put(out, "</bdi></td>");
}

static const char *percent_text(char out[NYB_NUMBER_TEXT], double value)
{
    (void) snprintf(out, NYB_NUMBER_TEXT, "%.2f %%", 100.0 * value);
    return out;
}

static void put_points(const nyb_page *page)
{
    static const char *const columns[] = {"checkpoint", "method",   "bits/weight",    "size",
                                          "perplexity", "KL, nats", "same top token", NULL};
    nyb_bytes *const out = page->out;
    nyb_markup_put(out, "<div class=\"scroll whole\" tabindex=\"0\" role=\"region\" "
                        "aria-label=\"All checkpoints\"><table id=\"points\"><thead><tr>");
    for (size_t i = 0; columns[i]; i++)
        nyb_markup_format(out, "<th scope=\"col\"%s>%s</th>", i < 2 ? "" : " class=\"n\"",
                          columns[i]);
    nyb_markup_put(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < page->data->point_count; i++) {
        const nyb_report_point *const p = &page->data->points[i];
        nyb_markup_format(out, "<tr><th scope=\"row\"><a href=\"#p%zu\"><bdi>", i);
        nyb_markup_text(out, p->name);
        nyb_markup_put(out, "</bdi></a></th>");
        put_series(out, page->data, p->series);
        nyb_markup_cell(out, p->bits, nyb_number_text);
        nyb_markup_cell(out, p->bytes, nyb_size_text);
        nyb_markup_cell(out, p->perplexity, nyb_number_text);
        nyb_markup_cell(out, p->base ? (double) NAN : p->kl, nyb_number_text);
        nyb_markup_cell(out, p->base ? (double) NAN : p->top1, percent_text);
        nyb_markup_put(out, "</tr>\n");
    }
    nyb_markup_put(out, "</tbody></table></div>\n");
}

nyb_status nyb_page_front(nyb_page *page)
{
    if (page->data->point_count == 0)
        return NYB_OK;
    const bool perplexity = any_has(page->data, NYB_MEASURE_PERPLEXITY);
    const bool kl = any_has(page->data, NYB_MEASURE_KL);
    nyb_status status = NYB_OK;
    nyb_page_section(page->out, "accuracy", "Accuracy and size");
    if (perplexity || kl) {
        nyb_markup_put(page->out, "<p class=\"note\">Less is better on both scales. The line joins "
                                  "the checkpoints that no other of their size or less beats. A "
                                  "point leads to the command that makes it.</p>\n");
        nyb_markup_put(page->out, perplexity && kl ? "<div class=\"pair\">\n" : "<div>\n");
        if (perplexity)
            status = put_measure(page, NYB_MEASURE_PERPLEXITY);
        if (status == NYB_OK && kl)
            status = put_measure(page, NYB_MEASURE_KL);
        nyb_markup_put(page->out, "</div>\n");
    }
    put_points(page);
    nyb_markup_put(page->out, "</section>\n");
    return status;
}

// ---- Sizes ----------------------------------------------------------------------------------

static void put_sizes(nyb_page *page, double width)
{
    nyb_bytes inside = {0};
    const double height = nyb_chart_sizes(&inside, page->data, width);
    nyb_page_svg(page->out, &inside, width, height, "img",
                 "a bar for the size of each checkpoint; the table has the numbers");
}

void nyb_page_sizes(nyb_page *page)
{
    static const char *const columns[] = {"checkpoint", "bytes", "of linear layers", NULL};
    nyb_bytes *const out = page->out;
    if (page->data->point_count == 0)
        return;
    nyb_page_section(out, "sizes", "Sizes");
    nyb_markup_put(out,
                   "<figure><figcaption>Bytes of the tensor files</figcaption>"
                   "<ul class=\"key\"><li><svg viewBox=\"0 0 16 14\" aria-hidden=\"true\"><rect "
                   "class=\"c0\" x=\"1\" y=\"2\" width=\"14\" height=\"10\"/></svg>linear layers "
                   "inside the blocks</li><li><svg viewBox=\"0 0 16 14\" aria-hidden=\"true\">"
                   "<rect class=\"c7\" x=\"1\" y=\"2\" width=\"14\" height=\"10\"/></svg>all else"
                   "</li></ul>\n");
    put_sizes(page, NYB_CHART_ALONE);
    put_sizes(page, NYB_CHART_NARROW);
    nyb_markup_put(out, "</figure>\n");
    nyb_page_table(out, "Sizes as a table", NULL, columns, 1);
    for (size_t i = 0; i < page->data->point_count; i++) {
        const nyb_report_point *const p = &page->data->points[i];
        nyb_page_row(out, p->name);
        nyb_markup_cell(out, p->bytes, nyb_count_text);
        nyb_markup_cell(out, p->layer_bytes, nyb_count_text);
        nyb_markup_put(out, "</tr>\n");
    }
    nyb_page_table_end(out);
    nyb_markup_put(out, "</section>\n");
}

// ---- Texts ----------------------------------------------------------------------------------

bool nyb_page_has_texts(const nyb_page *page)
{
    for (size_t i = 0; i < page->data->point_count; i++) {
        if (page->data->points[i].text)
            return true;
    }
    return false;
}

// Bytes, up to a whole character, in which the texts agree.
static size_t common(const char *a, const char *b)
{
    size_t n = 0;
    while (a[n] && a[n] == b[n])
        n++;
    while (n > 0 && ((unsigned char) a[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static void put_text(nyb_page *page, const nyb_report_point *p, const char *original)
{
    nyb_bytes *const out = page->out;
    const size_t same = original ? common(p->text, original) : strlen(p->text);
    const char *const start = nyb_arena_text(&page->data->arena, p->text, same);
    nyb_markup_put(out, "<p class=\"text\"><span class=\"prompt\">");
    nyb_markup_text(out, p->prompt ? p->prompt : "");
    nyb_markup_put(out, "</span>");
    nyb_markup_text(out, start ? start : "");
    out->failed = out->failed || !start;
    if (p->text[same]) {
        nyb_markup_put(out, "<span class=\"departs\">");
        nyb_markup_text(out, p->text + same);
        nyb_markup_put(out, "</span>");
    }
    nyb_markup_put(out, "</p>");
}

void nyb_page_texts(nyb_page *page)
{
    nyb_bytes *const out = page->out;
    const nyb_report_point *const base = nyb_report_base(page->data);
    const char *const original = base ? base->text : NULL;
    if (!nyb_page_has_texts(page))
        return;
    nyb_page_section(out, "texts", "Generated texts");
    nyb_markup_put(out, original ? "<p class=\"note\">Each checkpoint goes on with the most "
                                   "probable token. Underlined is what comes from where a text "
                                   "first departs from the original's.</p>\n"
                                 : "<p class=\"note\">Each checkpoint goes on with the most "
                                   "probable token.</p>\n");
    nyb_markup_put(out, "<div class=\"texts\">\n");
    for (size_t i = 0; i < page->data->point_count; i++) {
        const nyb_report_point *const p = &page->data->points[i];
        if (!p->text)
            continue;
        nyb_markup_put(out, "<article><h3><bdi>");
        nyb_markup_text(out, p->name);
        nyb_markup_put(out, "</bdi></h3>");
        put_text(page, p, original);
        nyb_markup_put(out, "</article>\n");
    }
    nyb_markup_put(out, "</div></section>\n");
}

// ---- Commands -------------------------------------------------------------------------------

// The settings that are plain values, in the order of the record.
static void put_settings(nyb_bytes *out, const json_t *record)
{
    json_t *const settings = json_object_get(record, "settings");
    const char *key;
    json_t *value;
    bool first = true;
    json_object_foreach(settings, key, value)
    {
        char number[NYB_NUMBER_TEXT];
        if (json_is_object(value) || json_is_array(value) || json_is_null(value))
            continue;
        nyb_markup_put(out, first ? "<p class=\"note\">" : ", ");
        first = false;
        nyb_markup_text(out, key);
        nyb_markup_put(out, " ");
        if (json_is_string(value))
            nyb_markup_text(out, json_string_value(value));
        else if (json_is_boolean(value))
            nyb_markup_put(out, json_is_true(value) ? "yes" : "no");
        else
            nyb_markup_put(out, nyb_exact_text(number, json_number_value(value)));
    }
    if (!first)
        nyb_markup_put(out, "</p>");
}

void nyb_page_commands(nyb_page *page)
{
    nyb_bytes *const out = page->out;
    if (page->data->point_count == 0)
        return;
    nyb_page_section(out, "commands", "Commands and settings");
    for (size_t i = 0; i < page->data->point_count; i++) {
        const nyb_report_point *const p = &page->data->points[i];
        nyb_markup_format(out, "<div class=\"command\" id=\"p%zu\" tabindex=\"-1\"><h3><bdi>", i);
        nyb_markup_text(out, p->name);
        nyb_markup_put(out, "</bdi></h3>");
        put_settings(out, p->record);
        if (p->command) {
            nyb_markup_put(out, "<pre>");
            if (p->calibrate) {
                nyb_markup_text(out, p->calibrate);
                nyb_markup_put(out, "\n");
            }
            nyb_markup_text(out, p->command);
            nyb_markup_put(out, "</pre>");
        } else {
            nyb_markup_put(out, p->base ? "<p class=\"note\">What the others are compared with.</p>"
                                        : "<p class=\"note\">Its command is not recorded.</p>");
        }
        nyb_markup_put(out, "</div>\n");
    }
    nyb_markup_put(out, "</section>\n");
}
