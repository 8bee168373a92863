// sweep.h - many quantisations of one model from one calibration, measured and compared.
#ifndef NYB_SWEEP_H_
#define NYB_SWEEP_H_

#include "nybble/eval.h"
#include "nybble/quantize.h"

// One point, as it is finished. Texts live until the callback returns.
typedef struct nyb_sweep_point {
    size_t index, count; // of the points; the original has none
    const char *name;
    const char *command;    // that makes this checkpoint
    bool known;             // its results were there already
    double bits_per_weight; // NaN in a list of what would be done, as all below
    double perplexity, kl;  // NaN: not measured
    double loss, seconds;   // sum of the layers' losses, NaN: none; to make the checkpoint
} nyb_sweep_point;

typedef struct nyb_sweep_params {
    const char *spec; // JSON file, see docs/sweep.md
    const char *out;  // folder of the results, taken up if it is there
    bool keep;        // the checkpoints, in out/points
    bool list;        // only say which points there are
    void *user;
    void (*point)(void *user, const nyb_sweep_point *point); // may be NULL
} nyb_sweep_params;

typedef struct nyb_sweep_result {
    size_t points, known;     // of the spec; those whose results were there already
    double seconds;           // of all
    double calibrate_seconds; // of these, to make stores of Hessians
    double solve_seconds, eval_seconds;
} nyb_sweep_result;

// Runs what the spec asks for: makes each store of Hessians that it needs, once; from them each
// point; measures it; and writes, after each point, out/results.jsonl (a line of the schema
// nybble.point/1 for the original and for each point) and out/results.csv. Points whose line is
// there already, from the same model, text and settings, are not made again.
//
// NYB_E_ARG, NYB_E_FORMAT  the spec has an unknown key, a value outside its range, or no points;
//                          err names it.
// Others as nyb_calibrate_hessians(), nyb_quantize() and nyb_compare(); err names the point. What
// was finished before stays.
NYB_API NYB_NODISCARD nyb_status nyb_sweep(const nyb_context *ctx, const nyb_sweep_params *params,
                                           nyb_sweep_result *result, nyb_err *err);

#endif // NYB_SWEEP_H_
