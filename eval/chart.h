// chart.h - pictures as SVG: what they are drawn with, and each kind of chart. Colours, fonts and
// lines are classes of the page's style (report_style.c); series i has colour class c<i % 8> and a
// mark of its own, so that nobody needs to tell colours apart.
#ifndef NYB_EVAL_CHART_H_
#define NYB_EVAL_CHART_H_

#include "eval/axis.h"
#include "eval/report_data.h"

enum {
    NYB_CHART_COLOURS = 8,
    NYB_CHART_ALONE = 720,  // units across a picture of its own; one is about a CSS pixel
    NYB_CHART_WIDE = 560,   // across one on a screen's page
    NYB_CHART_NARROW = 340, // across one on a telephone, and a small one among several
};

// The plot's rectangle and its axes.
typedef struct nyb_frame {
    double left, top, right, bottom;
    nyb_axis x, y;
} nyb_frame;

// The marks that nyb_chart_mark() uses; once a document, before the first of them.
void nyb_chart_defs(nyb_bytes *out);

void nyb_chart_mark(nyb_bytes *out, size_t series, double x, double y);

// The same with a tooltip, and of another size: 1 is that of the one above.
void nyb_chart_mark_titled(nyb_bytes *out, size_t series, double x, double y, double size,
                           const char *title);

// Frame, round numbers and thin lines at them.
void nyb_chart_x_axis(nyb_bytes *out, const nyb_frame *frame, size_t ticks);
void nyb_chart_y_axis(nyb_bytes *out, const nyb_frame *frame, size_t ticks);

// <text> of one of the page's classes, with text from outside.
void nyb_chart_text(nyb_bytes *out, const char *class, double x, double y, const char *text);

// ---- Accuracy against size ------------------------------------------------------------------

typedef enum nyb_measure {
    NYB_MEASURE_PERPLEXITY = 0,
    NYB_MEASURE_KL,
} nyb_measure;

double nyb_measure_of(const nyb_report_point *point, nyb_measure measure);
const char *nyb_measure_name(nyb_measure measure);

// Whether a point can be drawn: it has the measure and bits, and is not the base.
bool nyb_front_has(const nyb_report_point *point, nyb_measure measure);

// Points in the order of bits, and which of them nothing of their size or less beats.
typedef struct nyb_front {
    const nyb_report_point **at;
    bool *best;
    size_t count;
} nyb_front;

NYB_NODISCARD nyb_status nyb_front_of(nyb_front *out, nyb_report_data *data, nyb_measure measure,
                                      nyb_err *err);

typedef struct nyb_front_params {
    nyb_measure measure;
    double width;
    bool alone; // a picture of its own: no links
} nyb_front_params;

// The chart's inside and, in *height, how high it is: the caller opens and closes <svg>.
NYB_NODISCARD nyb_status nyb_chart_front(nyb_bytes *out, nyb_report_data *data,
                                         const nyb_front *front, const nyb_front_params *params,
                                         double *height, nyb_err *err);

// ---- Small pictures, several of them side by side -------------------------------------------

enum { NYB_LINES_MAX = 4 };

// Values over the blocks of a model, for modules of one kind.
typedef struct nyb_lines {
    const char *title;
    const char *names[NYB_LINES_MAX]; // of the series
    size_t series;
    const double *values[NYB_LINES_MAX]; // [count], NaN: none
    size_t count;                        // blocks
    nyb_axis y;                          // shared by all pictures of a chart; places are set here
} nyb_lines;

void nyb_chart_lines(nyb_bytes *out, const nyb_lines *lines);

typedef struct nyb_bars {
    const char *title;
    const nyb_report_histogram *histogram;
    size_t series;
    double low, high; // of the axis along the values, shared by all pictures of a chart
    bool log;         // counts on a log scale
} nyb_bars;

void nyb_chart_histogram(nyb_bytes *out, const nyb_bars *bars);

// A key to series of small pictures, as a list; a series without a name is left out.
void nyb_chart_key(nyb_bytes *out, const char *const *names, size_t count);

// ---- Sizes, and tokens of experts -----------------------------------------------------------

// The chart's inside; returns its height.
double nyb_chart_sizes(nyb_bytes *out, const nyb_report_data *data, double width);

// Tokens that reach each expert of each block; counts[block * experts + expert], NaN: none.
typedef struct nyb_heat {
    const double *counts;
    size_t blocks, experts;
} nyb_heat;

// The chart's inside; returns its height.
double nyb_chart_heat(nyb_bytes *out, const nyb_heat *heat, double width);

#endif // NYB_EVAL_CHART_H_
