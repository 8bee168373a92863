// report_style.h - how a page and its pictures look.
#ifndef NYB_EVAL_REPORT_STYLE_H_
#define NYB_EVAL_REPORT_STYLE_H_

// Colours, and what pictures need: for a page and for a picture of its own.
extern const char nyb_chart_style[];

// The rest of a page.
extern const char nyb_page_style[];

#endif // NYB_EVAL_REPORT_STYLE_H_
