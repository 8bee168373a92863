// Small pictures, several of which stand side by side: lines over the blocks of a model, and
// histograms.
#include <math.h>
#include <stdio.h>

#include "eval/chart.h"

enum {
    LEFT = 52,
    RIGHT = 8,
    TOP = 28,
    BOTTOM = 176,
    HIGH = 206,
    TITLE_COLUMNS = 40,
    MANY = 16, // blocks; with more, marks are smaller
};

static const nyb_frame frame_of_all = {
    .left = LEFT, .top = TOP, .right = NYB_CHART_NARROW - RIGHT, .bottom = BOTTOM};

static void open_panel(nyb_bytes *out, const char *title, const char *what)
{
    nyb_markup_format(out, "<svg class=\"panel\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
                      NYB_CHART_NARROW, HIGH);
    nyb_markup_text(out, title);
    nyb_markup_format(out, ": %s\"><text class=\"panel-title\" x=\"4\" y=\"16\">", what);
    nyb_markup_short(out, title, TITLE_COLUMNS);
    nyb_markup_put(out, "</text>");
}

// ---- Lines ----------------------------------------------------------------------------------

static bool can_show(const nyb_axis *y, double value)
{
    return isfinite(value) && (!y->log || value > 0.0);
}

static void draw_line(nyb_bytes *out, const nyb_lines *lines, const nyb_frame *frame, size_t series)
{
    bool pen = false;
    nyb_markup_format(out, "<path class=\"line c%zu\" d=\"", series);
    for (size_t i = 0; i < lines->count; i++) {
        const double value = lines->values[series][i];
        if (can_show(&frame->y, value))
            nyb_markup_format(out, "%c%.1f %.1f", pen ? 'L' : 'M',
                              nyb_axis_place(&frame->x, (double) i),
                              nyb_axis_place(&frame->y, value));
        pen = can_show(&frame->y, value);
    }
    nyb_markup_put(out, "\"/>");
}

static void draw_marks(nyb_bytes *out, const nyb_lines *lines, const nyb_frame *frame,
                       size_t series)
{
    char title[128], number[NYB_NUMBER_TEXT];
    for (size_t i = 0; i < lines->count; i++) {
        const double value = lines->values[series][i];
        if (!can_show(&frame->y, value))
            continue;
        (void) snprintf(title, sizeof(title), "block %zu, %s: %s", i, lines->names[series],
                        nyb_number_text(number, value));
        nyb_chart_mark_titled(out, series, nyb_axis_place(&frame->x, (double) i),
                              nyb_axis_place(&frame->y, value), lines->count > MANY ? 0.6 : 1.0,
                              title);
    }
}

void nyb_chart_lines(nyb_bytes *out, const nyb_lines *lines)
{
    nyb_frame frame = frame_of_all;
    nyb_extent blocks = NYB_EXTENT_NONE;
    nyb_extent_add(&blocks, 0.0);
    nyb_extent_add(&blocks, (double) (lines->count - 1));
    frame.x = nyb_axis_of(&blocks, false, frame.left + 6.0, frame.right - 6.0);
    frame.x.low = -0.5;
    frame.x.high = (double) lines->count - 0.5;
    frame.y = lines->y;
    frame.y.from = frame.bottom;
    frame.y.to = frame.top;
    open_panel(out, lines->title,
               "a line over the blocks for each series; the table has the numbers");
    nyb_chart_y_axis(out, &frame, 4);
    nyb_chart_x_axis(out, &frame, 8);
    for (size_t s = 0; s < lines->series; s++)
        draw_line(out, lines, &frame, s);
    for (size_t s = 0; s < lines->series; s++)
        draw_marks(out, lines, &frame, s);
    nyb_markup_put(out, "</svg>\n");
}

// ---- Histograms -----------------------------------------------------------------------------

static void draw_bins(nyb_bytes *out, const nyb_bars *bars, const nyb_frame *frame)
{
    const nyb_report_histogram *const h = bars->histogram;
    const double width = (h->high - h->low) / (double) h->bins;
    double y = frame->bottom;
    nyb_markup_format(out, "<path class=\"area c%zu\" d=\"M%.1f %.1f", bars->series,
                      nyb_axis_place(&frame->x, h->low), frame->bottom);
    for (size_t i = 0; i < h->bins; i++) {
        const double share = h->counts[i] / h->total;
        y = share > 0.0 ? nyb_axis_place(&frame->y, share) : frame->bottom;
        y = y > frame->bottom ? frame->bottom : y;
        nyb_markup_format(out, "V%.1fH%.1f", y,
                          nyb_axis_place(&frame->x, h->low + width * (double) (i + 1)));
    }
    nyb_markup_format(out, "V%.1fz\"/>", frame->bottom);
}

static nyb_axis axis_of_shares(const nyb_bars *bars)
{
    const nyb_report_histogram *const h = bars->histogram;
    nyb_extent shares = NYB_EXTENT_NONE;
    for (size_t i = 0; i < h->bins; i++) {
        if (h->counts[i] > 0.0)
            nyb_extent_add(&shares, h->counts[i] / h->total);
    }
    if (!bars->log)
        nyb_extent_add(&shares, 0.0);
    return nyb_axis_of(&shares, bars->log, BOTTOM, TOP);
}

void nyb_chart_histogram(nyb_bytes *out, const nyb_bars *bars)
{
    nyb_frame frame = frame_of_all;
    char number[NYB_NUMBER_TEXT], what[160];
    frame.x = (nyb_axis){bars->low, bars->high, false, frame.left, frame.right};
    frame.y = axis_of_shares(bars);
    (void) snprintf(what, sizeof(what), "a histogram of %s values; the table has the numbers",
                    nyb_count_text(number, bars->histogram->total));
    open_panel(out, bars->title, what);
    nyb_chart_y_axis(out, &frame, 4);
    nyb_chart_x_axis(out, &frame, 6);
    if (bars->histogram->total > 0.0)
        draw_bins(out, bars, &frame);
    nyb_markup_put(out, "</svg>\n");
}
