// Accuracy against size: a point for each checkpoint, and the line of those that nothing of their
// size or less beats.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "eval/chart.h"

enum {
    LEFT = 56,
    RIGHT = 14,
    TOP = 30,
    PLOT = 330,      // height of the plot
    BELOW = 44,      // for numbers and the title under it
    KEY_ROW = 20,    // of the key
    LABEL_WIDTH = 6, // of a column of a label
    TEXT_WIDTH = 7,  // of a column of other text
    MANY = 16,       // points; with more, only those on the front have their names beside them
};

static const double rad = 7.0; // what a mark and the air around it take

double nyb_measure_of(const nyb_report_point *point, nyb_measure measure)
{
    return measure == NYB_MEASURE_KL ? point->kl : point->perplexity;
}

const char *nyb_measure_name(nyb_measure measure)
{
    return measure == NYB_MEASURE_KL ? "KL from the original, nats" : "perplexity";
}

bool nyb_front_has(const nyb_report_point *point, nyb_measure measure)
{
    return !point->base && isfinite(point->bits) && isfinite(nyb_measure_of(point, measure));
}

// ---- The front ------------------------------------------------------------------------------

static int by_bits(const nyb_report_point *a, const nyb_report_point *b, nyb_measure measure)
{
    const double x = nyb_measure_of(a, measure), y = nyb_measure_of(b, measure);
    if (a->bits != b->bits)
        return a->bits < b->bits ? -1 : 1;
    if (x != y)
        return x < y ? -1 : 1;
    return a < b ? -1 : a > b; // all are elements of one array
}

static int by_perplexity(const void *a, const void *b)
{
    const nyb_report_point *const *const x = a, *const *const y = b;
    return by_bits(*x, *y, NYB_MEASURE_PERPLEXITY);
}

static int by_kl(const void *a, const void *b)
{
    const nyb_report_point *const *const x = a, *const *const y = b;
    return by_bits(*x, *y, NYB_MEASURE_KL);
}

nyb_status nyb_front_of(nyb_front *out, nyb_report_data *data, nyb_measure measure, nyb_err *err)
{
    *out = (nyb_front){
        .at = nyb_arena_alloc(&data->arena, data->point_count, sizeof(*out->at)),
        .best = nyb_arena_alloc(&data->arena, data->point_count, sizeof(*out->best)),
    };
    if (!out->at || !out->best)
        return nyb_no_memory(err, "points", data->point_count, sizeof(*out->at));
    for (size_t i = 0; i < data->point_count; i++) {
        if (nyb_front_has(&data->points[i], measure))
            out->at[out->count++] = &data->points[i];
    }
    if (out->count > 1)
        qsort(out->at, out->count, sizeof(nyb_report_point *),
              measure == NYB_MEASURE_KL ? by_kl : by_perplexity);
    double least = (double) INFINITY;
    for (size_t i = 0; i < out->count; i++) {
        const double value = nyb_measure_of(out->at[i], measure);
        out->best[i] = value < least;
        least = value < least ? value : least;
    }
    return NYB_OK;
}

// ---- Labels that do not cover anything ------------------------------------------------------

typedef struct box {
    double x0, y0, x1, y1;
} box;

typedef struct drawing {
    nyb_bytes *out;
    const nyb_report_data *data;
    const nyb_front *front;
    const nyb_front_params *params;
    nyb_frame frame;
    box *taken; // room for what is on the picture
    size_t taken_count, taken_room;
    double base; // the original's measure, NaN: unknown
} drawing;

static void take(drawing *d, box b)
{
    if (d->taken_count < d->taken_room)
        d->taken[d->taken_count++] = b;
}

static bool is_free(const drawing *d, box b)
{
    const nyb_frame *const f = &d->frame;
    if (b.x0 < f->left + 2.0 || b.x1 > f->right || b.y0 < f->top || b.y1 > f->bottom - 2.0)
        return false;
    for (size_t i = 0; i < d->taken_count; i++) {
        const box *const t = &d->taken[i];
        if (b.x0 < t->x1 && b.x1 > t->x0 && b.y0 < t->y1 && b.y1 > t->y0)
            return false;
    }
    return true;
}

static double place_x(const drawing *d, const nyb_report_point *p)
{
    return nyb_axis_place(&d->frame.x, p->bits);
}

static double place_y(const drawing *d, const nyb_report_point *p)
{
    return nyb_axis_place(&d->frame.y, nyb_measure_of(p, d->params->measure));
}

// Small boxes along a line, so that labels stay off it.
static void take_line(drawing *d, double x0, double y0, double x1, double y1)
{
    enum { STEPS = 24 };
    for (int i = 0; i <= STEPS; i++) {
        const double t = (double) i / STEPS, x = x0 + t * (x1 - x0), y = y0 + t * (y1 - y0);
        take(d, (box){x - 2.0, y - 2.0, x + 2.0, y + 2.0});
    }
}

static void draw_label(drawing *d, const nyb_report_point *p)
{
    // The sides of the mark, in the order in which they are tried.
    static const double sides[][2] = {{1, 0},   {-1, 0}, {1, -1}, {1, 1},  {-1, -1},
                                      {-1, 1},  {0, -1}, {0, 1},  {1, -2}, {1, 2},
                                      {-1, -2}, {-1, 2}, {0, -2}, {0, 2}};
    const size_t most = d->params->width < NYB_CHART_WIDE ? 14 : 24;
    const size_t columns = nyb_text_columns(p->name);
    const double wide = LABEL_WIDTH * (double) (columns < most ? columns : most), high = 13.0;
    const double x = place_x(d, p), y = place_y(d, p);
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        const double cx = x + sides[i][0] * (wide / 2.0 + rad + 1.0);
        const double cy = y + sides[i][1] * (high / 2.0 + (sides[i][0] == 0.0 ? rad : 3.0));
        const box b = {cx - wide / 2.0, cy - high / 2.0, cx + wide / 2.0, cy + high / 2.0};
        if (!is_free(d, b))
            continue;
        take(d, b);
        nyb_markup_format(d->out, "<text class=\"label mid\" x=\"%.1f\" y=\"%.1f\">", cx, cy + 4.0);
        nyb_markup_short(d->out, p->name, most);
        nyb_markup_put(d->out, "</text>");
        return;
    }
}

// ---- What lies under the points -------------------------------------------------------------

static void draw_base(drawing *d)
{
    const nyb_frame *const f = &d->frame;
    char number[NYB_NUMBER_TEXT], text[NYB_NUMBER_TEXT + 16];
    if (!isfinite(d->base))
        return;
    const double y = nyb_axis_place(&f->y, d->base);
    nyb_markup_format(d->out, "<path class=\"base\" d=\"M%.1f %.1fH%.1f\"/>", f->left, y, f->right);
    take(d, (box){f->left, y - 2.0, f->right, y + 2.0});
    (void) snprintf(text, sizeof(text), "original %s", nyb_number_text(number, d->base));
    // Above the line, where the smallest checkpoints leave room at the left.
    const double wide = LABEL_WIDTH * (double) nyb_text_columns(text);
    nyb_chart_text(d->out, "label", f->left + 6.0, y - 5.0, text);
    take(d, (box){f->left + 4.0, y - 17.0, f->left + 8.0 + wide, y});
}

static void draw_front(drawing *d)
{
    const nyb_report_point *last = NULL;
    nyb_markup_put(d->out, "<path class=\"front\" d=\"");
    for (size_t i = 0; i < d->front->count; i++) {
        const nyb_report_point *const p = d->front->at[i];
        if (!d->front->best[i])
            continue;
        nyb_markup_format(d->out, "%c%.1f %.1f", last ? 'L' : 'M', place_x(d, p), place_y(d, p));
        if (last)
            take_line(d, place_x(d, last), place_y(d, last), place_x(d, p), place_y(d, p));
        last = p;
    }
    nyb_markup_put(d->out, "\"/>");
}

static void draw_mark(drawing *d, const nyb_report_point *p)
{
    const double x = place_x(d, p), y = place_y(d, p);
    nyb_chart_mark(d->out, p->series, x, y);
    take(d, (box){x - rad, y - rad, x + rad, y + rad});
}

// Those on the front lie on top, and choose the places of their names first.
static void draw_marks(drawing *d)
{
    for (int best = 0; best <= 1; best++) {
        for (size_t i = 0; i < d->front->count; i++) {
            if (d->front->best[i] == (best == 1))
                draw_mark(d, d->front->at[i]);
        }
    }
    const int last = d->front->count > MANY ? 1 : 0;
    for (int best = 1; best >= last; best--) {
        for (size_t i = 0; i < d->front->count; i++) {
            if (d->front->best[i] == (best == 1))
                draw_label(d, d->front->at[i]);
        }
    }
}

static void draw_titles(const drawing *d)
{
    const nyb_frame *const f = &d->frame;
    char text[96];
    (void) snprintf(text, sizeof(text), "%s%s", nyb_measure_name(d->params->measure),
                    f->y.log ? ", log scale" : "");
    nyb_chart_text(d->out, "axis-title", 4.0, 16.0, text);
    nyb_chart_text(d->out, "axis-title mid", (f->left + f->right) / 2.0, f->bottom + 34.0,
                   "bits per weight of the linear layers");
}

// ---- What can be pointed at -----------------------------------------------------------------

static void describe(char lines[4][96], const nyb_report_point *p)
{
    char number[NYB_NUMBER_TEXT];
    (void) snprintf(lines[0], 96, "%s bits per weight", nyb_number_text(number, p->bits));
    (void) snprintf(lines[1], 96, "perplexity %s", nyb_number_text(number, p->perplexity));
    (void) snprintf(lines[2], 96, "KL %s", nyb_number_text(number, p->kl));
    (void) snprintf(lines[3], 96, "size %s", nyb_size_text(number, p->bytes));
}

// A box with what the tooltip says, for those who come by keyboard.
static void draw_tip(const drawing *d, const nyb_report_point *p, char lines[4][96])
{
    enum { LINE = 16, MOST = 30, LINES = 6 };
    const char *const all[LINES] = {
        p->name, d->data->series[p->series], lines[0], lines[1], lines[2], lines[3]};
    size_t columns = 0;
    for (int i = 0; i < LINES; i++) {
        const size_t wide = nyb_text_columns(all[i]);
        columns = wide > columns ? wide : columns;
    }
    columns = columns < MOST ? columns : MOST;
    const double wide = 18.0 + TEXT_WIDTH * (double) columns, high = 14.0 + LINES * LINE;
    const double x = place_x(d, p), y = place_y(d, p);
    double left = x + 14.0 + wide > d->params->width ? x - 14.0 - wide : x + 14.0;
    left = left < 2.0 ? 2.0 : left;
    double top = y - high / 2.0;
    top = top < 2.0 ? 2.0 : top + high > d->frame.bottom ? d->frame.bottom - high : top;
    nyb_markup_format(d->out,
                      "<g class=\"tip\" aria-hidden=\"true\"><rect x=\"%.1f\" y=\"%.1f\" "
                      "width=\"%.1f\" height=\"%.1f\" rx=\"6\"/>",
                      left, top, wide, high);
    for (int i = 0; i < LINES; i++) {
        nyb_markup_format(d->out, "<text%s x=\"%.1f\" y=\"%.1f\">",
                          i == 0 ? " class=\"strong\"" : "", left + 10.0, top + 20.0 + LINE * i);
        nyb_markup_short(d->out, all[i], columns);
        nyb_markup_put(d->out, "</text>");
    }
    nyb_markup_put(d->out, "</g>");
}

static void draw_link(const drawing *d, const nyb_report_point *p)
{
    char lines[4][96];
    const size_t index = (size_t) (p - d->data->points);
    describe(lines, p);
    nyb_markup_format(d->out, "<a class=\"pt\" href=\"#p%zu\"><title>", index);
    nyb_markup_text(d->out, p->name);
    nyb_markup_put(d->out, ", ");
    nyb_markup_text(d->out, d->data->series[p->series]);
    for (int i = 0; i < 4; i++)
        nyb_markup_format(d->out, ", %s", lines[i]);
    nyb_markup_format(d->out, "</title><circle class=\"hit\" cx=\"%.1f\" cy=\"%.1f\" r=\"11\"/>",
                      place_x(d, p), place_y(d, p));
    draw_tip(d, p, lines);
    nyb_markup_put(d->out, "</a>\n");
}

// ---- The key, and the whole -----------------------------------------------------------------

static bool is_drawn(const drawing *d, size_t series)
{
    for (size_t i = 0; i < d->front->count; i++) {
        if (d->front->at[i]->series == series)
            return true;
    }
    return false;
}

// Moves on to the next place of the key and returns it.
static box next_key(const drawing *d, box last, size_t columns)
{
    const double wide = 26.0 + TEXT_WIDTH * (double) columns;
    const bool fits = last.x1 + wide <= d->params->width - 4.0;
    const double x = fits ? last.x1 : 8.0, y = fits ? last.y0 : last.y0 + KEY_ROW;
    return (box){x, y, x + wide, y + KEY_ROW};
}

// Returns where it ends.
static double draw_key(const drawing *d)
{
    const size_t most = (size_t) (d->params->width - 50.0) / TEXT_WIDTH;
    box at = {8.0, d->frame.bottom + BELOW + 12.0, 8.0, 0.0};
    for (size_t i = 0; i < d->data->series_count; i++) {
        if (!is_drawn(d, i))
            continue;
        const size_t columns = nyb_text_columns(d->data->series[i]);
        at = next_key(d, at, columns < most ? columns : most);
        nyb_chart_mark(d->out, i, at.x0 + 6.0, at.y0 - 4.0);
        nyb_markup_format(d->out, "<text class=\"label\" x=\"%.1f\" y=\"%.1f\">", at.x0 + 17.0,
                          at.y0);
        nyb_markup_short(d->out, d->data->series[i], most);
        nyb_markup_put(d->out, "</text>");
    }
    at = next_key(d, at, 14);
    nyb_markup_format(d->out, "<path class=\"front\" d=\"M%.1f %.1fh16\"/>", at.x0 - 2.0,
                      at.y0 - 4.0);
    nyb_chart_text(d->out, "label", at.x0 + 19.0, at.y0, "Pareto front");
    return at.y0 + 10.0;
}

static void set_axes(drawing *d)
{
    nyb_extent bits = NYB_EXTENT_NONE, values = NYB_EXTENT_NONE;
    for (size_t i = 0; i < d->front->count; i++) {
        nyb_extent_add(&bits, d->front->at[i]->bits);
        nyb_extent_add(&values, nyb_measure_of(d->front->at[i], d->params->measure));
    }
    nyb_extent_add(&values, d->base);
    d->frame = (nyb_frame){
        .left = LEFT, .top = TOP, .right = d->params->width - RIGHT, .bottom = TOP + PLOT};
    d->frame.x = nyb_axis_of(&bits, false, LEFT, d->frame.right);
    d->frame.x.high += 0.12 * (d->frame.x.high - d->frame.x.low); // room for the last names
    d->frame.y = nyb_axis_of(&values, true, d->frame.bottom, TOP);
}

nyb_status nyb_chart_front(nyb_bytes *out, nyb_report_data *data, const nyb_front *front,
                           const nyb_front_params *params, double *height, nyb_err *err)
{
    const nyb_report_point *const base = nyb_report_base(data);
    drawing d = {.out = out,
                 .data = data,
                 .front = front,
                 .params = params,
                 .taken_room = 28 * front->count + 64,
                 .base = base && params->measure == NYB_MEASURE_PERPLEXITY ? base->perplexity
                                                                           : (double) NAN};
    d.taken = nyb_arena_alloc(&data->arena, d.taken_room, sizeof(*d.taken));
    if (!d.taken)
        return nyb_no_memory(err, "labels", d.taken_room, sizeof(*d.taken));
    set_axes(&d);
    nyb_chart_x_axis(out, &d.frame, params->width < NYB_CHART_WIDE ? 5 : 8);
    nyb_chart_y_axis(out, &d.frame, 6);
    draw_titles(&d);
    draw_base(&d);
    draw_front(&d);
    draw_marks(&d);
    *height = draw_key(&d);
    for (size_t i = 0; !params->alone && i < front->count; i++)
        draw_link(&d, front->at[i]);
    return NYB_OK;
}
