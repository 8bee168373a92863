// report_data.h - what a page is made of: records from JSON, checked and turned into plain structs.
// The files are untrusted: every number is bounded and every text goes through the markup's
// escaping.
#ifndef NYB_EVAL_REPORT_DATA_H_
#define NYB_EVAL_REPORT_DATA_H_

#include <jansson.h>
#include <stdbool.h>

#include "core/arena.h"

enum {
    NYB_REPORT_POINTS = 4096,  // records at most
    NYB_REPORT_DEPTH = 1 << 12 // blocks of a model at most
};

// The kind of a module is its name behind the block's number: "self_attn.q_proj".
typedef struct nyb_report_kind {
    const char *full;
    const char *shown; // its last part where that tells it from the others
} nyb_report_kind;

// NaN stands for a number that is not there.
typedef struct nyb_report_layer {
    const char *module;
    size_t kind, depth;
    bool expert; // `which` is its number
    size_t which;
    double loss, pass_loss, rtn_loss, error, bits, tokens, routed;
} nyb_report_layer;

typedef struct nyb_report_histogram {
    const char *kind;
    double low, high;
    const double *counts; // [bins]
    size_t bins;
    double total;
} nyb_report_histogram;

typedef struct nyb_report_point {
    const json_t *record;
    const char *name, *command, *prompt, *text; // NULL: not there, but for name
    const char *calibrate;                      // the command that has to go before, NULL: none
    bool base;
    size_t series;
    double bits, perplexity, loss, kl, top1, bytes, layer_bytes, seconds;
    const nyb_report_layer *layers;
    size_t layer_count;
    const nyb_report_histogram *weights, *scales;
    size_t weight_count, scale_count;
} nyb_report_point;

enum { NYB_RANGE_MEASURES = 4 };

// The inputs of one layer.
typedef struct nyb_report_range {
    const char *module;
    size_t kind, depth;
    double low, high, tokens;
    double sizes[NYB_RANGE_MEASURES]; // absmax, percentile, mse, entropy
} nyb_report_range;

typedef struct nyb_report_data {
    nyb_arena arena;
    json_t *records;      // [record], whose texts the structs below borrow
    json_t *sources;      // [text] where each record is from
    const json_t *scored; // how the text was scored, of the first record that says so; may be NULL
    nyb_report_point *points;
    size_t point_count;
    const char **series;
    size_t series_count;
    nyb_report_kind *kinds;
    size_t kind_count;
    nyb_report_range *ranges;
    size_t range_count;
    double percentile; // of the ranges
} nyb_report_data;

// Reads files of JSON or JSON lines.
//
// NYB_E_FORMAT       a file is not JSON, or a record's schema is unknown: err names file and line.
// Others as nyb_file_read().
NYB_NODISCARD nyb_status nyb_report_load(nyb_report_data *data, const char *const *paths,
                                         size_t count, nyb_err *err);

// The same for JSON lines in memory; `name` stands for them in errors.
NYB_NODISCARD nyb_status nyb_report_load_lines(nyb_report_data *data, const char *name,
                                               const char *text, size_t length, nyb_err *err);

// Appends a record, whose reference it takes.
NYB_NODISCARD nyb_status nyb_report_add(nyb_report_data *data, json_t *record, const char *source,
                                        nyb_err *err);

// Turns the records into structs.
//
// NYB_E_FORMAT  a record lacks its name, or holds a number that is out of bounds: err names both.
NYB_NODISCARD nyb_status nyb_report_digest(nyb_report_data *data, nyb_err *err);

void nyb_report_clear(nyb_report_data *data); // zeroed is fine

// The index of a module's kind, and the block that the module is in.
NYB_NODISCARD nyb_status nyb_report_place(nyb_report_data *data, const char *module, size_t *kind,
                                          size_t *depth, nyb_err *err);

// Kinds get the last part of their names where no other ends so.
void nyb_report_shorten(nyb_report_data *data);

// The point that others are compared with, NULL: there is none.
const nyb_report_point *nyb_report_base(const nyb_report_data *data);

#endif // NYB_EVAL_REPORT_DATA_H_
