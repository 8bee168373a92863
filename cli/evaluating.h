// evaluating.h - the options that `eval` and `compare` share.
#ifndef NYB_CLI_EVALUATING_H_
#define NYB_CLI_EVALUATING_H_

#include "cli/command.h"
#include "nybble/eval.h"

typedef struct nyb_evaluating {
    const char *text;
    size_t window, stride, max_tokens;
    int bos, activations;
} nyb_evaluating;

extern const nyb_evaluating nyb_evaluating_defaults;
extern const nyb_option nyb_evaluating_options[];

nyb_eval_params nyb_evaluating_params(const nyb_call *call);

// How the text was scored, in one line: "40,960 tokens in 40 windows of 1,024, ...".
void nyb_evaluating_print(const nyb_eval_params *params, const nyb_eval_result *result);
json_t *nyb_evaluating_json(const nyb_eval_params *params, const nyb_eval_result *result);

#endif // NYB_CLI_EVALUATING_H_
