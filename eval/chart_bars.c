// Sizes as bars, and the tokens of experts as a field of squares.
#include <math.h>
#include <stdio.h>

#include "eval/chart.h"

// ---- Sizes ----------------------------------------------------------------------------------

enum { ROW = 44, BAR = 16, SIDE = 4, NUMBER = 92 };

static void draw_part(nyb_bytes *out, const char *class, double x, double y, double width,
                      const char *title)
{
    nyb_markup_format(out,
                      "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\">"
                      "<title>%s</title></rect>",
                      class, x, y, width, BAR, title);
}

// The layers' part, then the rest, to scale.
static void draw_bar(nyb_bytes *out, const nyb_report_point *p, double y, double scale)
{
    char number[NYB_NUMBER_TEXT], title[96];
    const bool known = p->layer_bytes >= 0.0 && p->layer_bytes <= p->bytes;
    const double layers = known ? p->layer_bytes : p->bytes;
    (void) snprintf(title, sizeof(title), "linear layers: %s", nyb_size_text(number, layers));
    draw_part(out, "c0 part", SIDE, y, layers * scale, title);
    (void) snprintf(title, sizeof(title), "all else: %s", nyb_size_text(number, p->bytes - layers));
    if (p->bytes > layers)
        draw_part(out, "c7 part", SIDE + layers * scale, y, (p->bytes - layers) * scale, title);
    nyb_chart_text(out, "label", SIDE + p->bytes * scale + 6.0, y + 12.0,
                   nyb_size_text(number, p->bytes));
}

double nyb_chart_sizes(nyb_bytes *out, const nyb_report_data *data, double width)
{
    double most = 0.0, y = 0.0;
    for (size_t i = 0; i < data->point_count; i++)
        most = data->points[i].bytes > most ? data->points[i].bytes : most;
    for (size_t i = 0; i < data->point_count && most > 0.0; i++) {
        const nyb_report_point *const p = &data->points[i];
        if (!(p->bytes > 0.0))
            continue;
        nyb_markup_format(out, "<text class=\"label\" x=\"%d\" y=\"%.1f\">", SIDE, y + 14.0);
        nyb_markup_short(out, p->name, (size_t) width / 7);
        nyb_markup_put(out, "</text>");
        draw_bar(out, p, y + 19.0, (width - SIDE - NUMBER) / most);
        y += ROW;
    }
    return y + 4.0;
}

// ---- Tokens of experts ----------------------------------------------------------------------

enum { HEAT_LEFT = 44, HEAT_TOP = 26, LEVELS = 6 };

// 0: none at all; then equal steps up to the most.
static int level_of(double count, double most)
{
    if (!(count > 0.0))
        return 0;
    const int level = 1 + (int) (count / most * (LEVELS - 1));
    return level < LEVELS ? level : LEVELS - 1;
}

static void draw_cells(nyb_bytes *out, const nyb_heat *heat, double cell, double most)
{
    char number[NYB_NUMBER_TEXT];
    for (size_t i = 0; i < heat->blocks * heat->experts; i++) {
        const size_t block = i / heat->experts, expert = i % heat->experts;
        if (!isfinite(heat->counts[i]))
            continue;
        nyb_markup_format(out,
                          "<rect class=\"h%d\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" "
                          "height=\"%.2f\"><title>block %zu, expert %zu: %s tokens</title></rect>",
                          level_of(heat->counts[i], most), HEAT_LEFT + cell * (double) expert,
                          HEAT_TOP + cell * (double) block, 0.94 * cell, 0.94 * cell, block, expert,
                          nyb_count_text(number, heat->counts[i]));
    }
}

static void draw_levels(nyb_bytes *out, double y, double most)
{
    char number[NYB_NUMBER_TEXT], text[NYB_NUMBER_TEXT + 8];
    for (int i = 0; i < LEVELS; i++) {
        const double x = HEAT_LEFT + 48.0 * i;
        nyb_markup_format(out,
                          "<rect class=\"h%d\" x=\"%.1f\" y=\"%.1f\" width=\"14\" "
                          "height=\"14\"/>",
                          i, x, y);
        (void) snprintf(text, sizeof(text), "%s%s", i == 0 ? "" : "\xe2\x89\xa4",
                        nyb_number_text(number, most * i / (LEVELS - 1)));
        nyb_chart_text(out, "tick", x, y + 28.0, i == 0 ? "0" : text);
    }
}

double nyb_chart_heat(nyb_bytes *out, const nyb_heat *heat, double width)
{
    const double room = (width - HEAT_LEFT - 4.0) / (double) heat->experts;
    const double cell = room > 26.0 ? 26.0 : room;
    char text[NYB_NUMBER_TEXT];
    double most = 0.0;
    for (size_t i = 0; i < heat->blocks * heat->experts; i++)
        most = heat->counts[i] > most ? heat->counts[i] : most;
    nyb_chart_text(out, "axis-title", HEAT_LEFT, 16.0, "experts across, blocks down");
    // Every number where there is room, else every tenth.
    const size_t step = cell >= 12.0 ? 1 : 10;
    for (size_t i = 0; i < heat->blocks; i += step) {
        (void) snprintf(text, sizeof(text), "%zu", i);
        nyb_chart_text(out, "tick end", HEAT_LEFT - 6.0, HEAT_TOP + cell * ((double) i + 0.5) + 4.0,
                       text);
    }
    draw_cells(out, heat, cell, most);
    const double below = HEAT_TOP + cell * (double) heat->blocks + 12.0;
    draw_levels(out, below, most);
    return below + 36.0;
}
