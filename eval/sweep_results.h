// sweep_results.h - the lines that a sweep writes: results.jsonl and results.csv.
#ifndef NYB_EVAL_SWEEP_RESULTS_H_
#define NYB_EVAL_SWEEP_RESULTS_H_

#include "eval/sweep_spec.h"

typedef struct nyb_sweep_lines {
    nyb_arena arena;
    const char *lines_path, *table_path;
    json_t *all; // [...] in the order in which they were added
} nyb_sweep_lines;

// Takes up the lines that the folder has.
//
// NYB_E_FORMAT  results.jsonl is not such lines; err names the line.
NYB_NODISCARD nyb_status nyb_sweep_lines_open(nyb_sweep_lines *out, const char *folder,
                                              nyb_err *err);
void nyb_sweep_lines_close(nyb_sweep_lines *lines); // zeroed is fine

// The line with this key, NULL: none.
const json_t *nyb_sweep_lines_find(const nyb_sweep_lines *lines, const char *key);

// Adds a line, which is taken over, also on an error, and writes both files anew: they are whole at
// any time.
NYB_NODISCARD nyb_status nyb_sweep_lines_add(nyb_sweep_lines *lines, json_t *line, nyb_err *err);

// The line of a task whose checkpoint stands in its folder (NULL: of the model as it is), with what
// was measured (NULL: nothing). The caller owns it.
NYB_NODISCARD nyb_status nyb_sweep_line(json_t **out, const nyb_context *ctx,
                                        const nyb_sweep_spec *spec, const nyb_sweep_task *task,
                                        const nyb_compared *row, nyb_err *err);

// A number of a line; NaN: it has none.
double nyb_sweep_number(const json_t *line, const char *key);

#endif // NYB_EVAL_SWEEP_RESULTS_H_
