// report_page.h - the sections of a page. Each writes nothing when there is nothing to show.
#ifndef NYB_EVAL_REPORT_PAGE_H_
#define NYB_EVAL_REPORT_PAGE_H_

#include "eval/chart.h"

typedef struct nyb_page {
    nyb_bytes *out;
    nyb_report_data *data;
    const char *title; // NULL: made from the data
    nyb_err *err;
} nyb_page;

// The whole page.
NYB_NODISCARD nyb_status nyb_page_write(nyb_page *page);

// The main chart as a picture of its own.
NYB_NODISCARD nyb_status nyb_page_picture(nyb_page *page);

bool nyb_page_has_layers(const nyb_page *page);
bool nyb_page_has_spread(const nyb_page *page);
bool nyb_page_has_texts(const nyb_page *page);

NYB_NODISCARD nyb_status nyb_page_front(nyb_page *page);  // charts of accuracy, and all points
void nyb_page_sizes(nyb_page *page);                      // bars
NYB_NODISCARD nyb_status nyb_page_layers(nyb_page *page); // errors of layers, tokens of experts
void nyb_page_spread(nyb_page *page);                     // histograms
NYB_NODISCARD nyb_status nyb_page_ranges(nyb_page *page); // of activations
void nyb_page_texts(nyb_page *page);                      // generated ones side by side
void nyb_page_commands(nyb_page *page);                   // what makes each point

// ---- Parts ----------------------------------------------------------------------------------

// <section> with a heading; closed by </section>.
void nyb_page_section(nyb_bytes *out, const char *id, const char *heading);

// A picture that is on the page twice, for wide and for narrow screens: `inside` is moved into it
// and cleared. `role` and `label` are our own words.
void nyb_page_svg(nyb_bytes *out, nyb_bytes *inside, double width, double height, const char *role,
                  const char *label);

// A table that opens by a click and scrolls inside the page. Headings of columns end with NULL;
// all but the first `texts` stand over numbers. `label` is text from outside, or NULL.
void nyb_page_table(nyb_bytes *out, const char *summary, const char *label,
                    const char *const *columns, size_t texts);
void nyb_page_table_end(nyb_bytes *out);

// <th> at the head of a row, with text from outside.
void nyb_page_row(nyb_bytes *out, const char *text);

#endif // NYB_EVAL_REPORT_PAGE_H_
