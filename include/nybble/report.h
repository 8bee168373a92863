// report.h - a page that shows what compression cost: accuracy against size, errors of layers,
// histograms, ranges of activations, sizes, texts side by side, and the command behind each point.
//
// It is one HTML file that loads nothing and runs no script. The same records give the same bytes.
#ifndef NYB_REPORT_H_
#define NYB_REPORT_H_

#include "nybble/context.h"
#include "nybble/eval.h"

// What nyb_compare() found, to be shown.
typedef struct nyb_report_comparison {
    const char *const *folders; // [count], of which the first is the original
    size_t count;
    const nyb_eval_params *eval;
    const nyb_compared *rows; // [count]
    const char *prompt;       // that every checkpoint goes on with; NULL: no texts
    size_t new_tokens;        // of each text, >= 1
} nyb_report_comparison;

typedef struct nyb_report_params {
    // JSON or JSON lines, each record of which says by its "schema" what it is: nybble.point/1
    // (docs/report.md) or nybble.activations/1 (of nyb_calibrate()).
    const char *const *files;
    size_t file_count;
    const nyb_report_comparison *comparison; // its records come first; NULL: none
    const char *title;                       // NULL: made from the records
    const char *html;                        // page to be made; NULL: none
    const char *chart;                       // its main chart alone, as SVG; NULL: none
    const char *points;                      // the comparison's records as JSON lines; NULL: none
    bool force;                              // replace files
} nyb_report_params;

// Whether nyb_report() may make its files: before a long evaluation.
//
// NYB_E_EXISTS  one is there and force is not set.
NYB_API NYB_NODISCARD nyb_status nyb_report_check(const nyb_report_params *params, nyb_err *err);

// Makes the files that are asked for. Of a comparison's folders it reads nybble_report.json where
// there is one, the weights of the first, and the scales of the others.
//
// NYB_E_FORMAT   a record is not what its schema says, there is none at all, or no chart: err names
//                file and line.
// NYB_E_EXISTS   as nyb_report_check().
// Others as the files, the checkpoints and their tokenizers give them. A file that was complete
// before the error stays.
NYB_API NYB_NODISCARD nyb_status nyb_report(const nyb_context *ctx, const nyb_report_params *params,
                                            nyb_err *err);

#endif // NYB_REPORT_H_
