#include "eval/chart.h"

#include <stdio.h>

// Each about 10 units across, around (0, 0).
static const char *const marks[NYB_CHART_COLOURS] = {
    "M-4.3 0a4.3 4.3 0 1 0 8.6 0a4.3 4.3 0 1 0-8.6 0z",                            // disc
    "M-3.8-3.8h7.6v7.6h-7.6z",                                                     // square
    "M0-5.2L5 3.8H-5z",                                                            // up
    "M0-5.4L5.4 0L0 5.4L-5.4 0z",                                                  // diamond
    "M-1.7-5.2h3.4v3.5h3.5v3.4h-3.5v3.5h-3.4v-3.5h-3.5v-3.4h3.5z",                 // plus
    "M0 5.2L5-3.8H-5z",                                                            // down
    "M-5-2.5L-2.5-5 0-2.5 2.5-5 5-2.5 2.5 0 5 2.5 2.5 5 0 2.5-2.5 5-5 2.5-2.5 0z", // cross
    "M0-5.2L4.95-1.6L3.06 4.2H-3.06L-4.95-1.6z",                                   // pentagon
};

void nyb_chart_defs(nyb_bytes *out)
{
    nyb_markup_put(out, "<defs>");
    for (size_t i = 0; i < NYB_CHART_COLOURS; i++)
        nyb_markup_format(out, "<path id=\"m%zu\" d=\"%s\"/>", i, marks[i]);
    nyb_markup_put(out, "</defs>");
}

// Where colours begin anew, marks are shifted, so that 64 series differ.
static size_t mark_of(size_t series)
{
    return (series + series / NYB_CHART_COLOURS) % NYB_CHART_COLOURS;
}

void nyb_chart_mark(nyb_bytes *out, size_t series, double x, double y)
{
    nyb_markup_format(out, "<use href=\"#m%zu\" class=\"c%zu\" x=\"%.1f\" y=\"%.1f\"/>",
                      mark_of(series), series % NYB_CHART_COLOURS, x, y);
}

void nyb_chart_mark_titled(nyb_bytes *out, size_t series, double x, double y, double size,
                           const char *title)
{
    nyb_markup_format(out,
                      "<use href=\"#m%zu\" class=\"c%zu\" "
                      "transform=\"translate(%.1f %.1f) scale(%g)\"><title>",
                      mark_of(series), series % NYB_CHART_COLOURS, x, y, size);
    nyb_markup_text(out, title);
    nyb_markup_put(out, "</title></use>");
}

void nyb_chart_text(nyb_bytes *out, const char *class, double x, double y, const char *text)
{
    nyb_markup_format(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
    nyb_markup_text(out, text);
    nyb_markup_put(out, "</text>");
}

void nyb_chart_x_axis(nyb_bytes *out, const nyb_frame *frame, size_t ticks)
{
    const nyb_ticks t = nyb_axis_ticks(&frame->x, ticks);
    char text[NYB_NUMBER_TEXT];
    nyb_markup_put(out, "<path class=\"grid\" d=\"");
    for (size_t i = 0; i < t.count; i++)
        nyb_markup_format(out, "M%.1f %.1fV%.1f", nyb_axis_place(&frame->x, t.at[i]), frame->top,
                          frame->bottom);
    nyb_markup_format(out, "\"/><path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>", frame->left,
                      frame->bottom, frame->right);
    for (size_t i = 0; i < t.count; i++)
        nyb_chart_text(out, "tick mid", nyb_axis_place(&frame->x, t.at[i]), frame->bottom + 15.0,
                       nyb_tick_text(text, t.at[i]));
}

void nyb_chart_y_axis(nyb_bytes *out, const nyb_frame *frame, size_t ticks)
{
    const nyb_ticks t = nyb_axis_ticks(&frame->y, ticks);
    char text[NYB_NUMBER_TEXT];
    nyb_markup_put(out, "<path class=\"grid\" d=\"");
    for (size_t i = 0; i < t.count; i++)
        nyb_markup_format(out, "M%.1f %.1fH%.1f", frame->left, nyb_axis_place(&frame->y, t.at[i]),
                          frame->right);
    nyb_markup_put(out, "\"/>");
    for (size_t i = 0; i < t.count; i++)
        nyb_chart_text(out, "tick end", frame->left - 6.0, nyb_axis_place(&frame->y, t.at[i]) + 4.0,
                       nyb_tick_text(text, t.at[i]));
}

void nyb_chart_key(nyb_bytes *out, const char *const *names, size_t count)
{
    nyb_markup_put(out, "<ul class=\"key\">");
    for (size_t i = 0; i < count; i++) {
        if (!names[i])
            continue;
        nyb_markup_put(out, "<li><svg viewBox=\"-8 -7 16 14\" width=\"16\" height=\"14\" "
                            "aria-hidden=\"true\">");
        nyb_chart_mark(out, i, 0.0, 0.0);
        nyb_markup_put(out, "</svg>");
        nyb_markup_text(out, names[i]);
        nyb_markup_put(out, "</li>");
    }
    nyb_markup_put(out, "</ul>\n");
}
