// yardstick.h - measuring many checkpoints of one model on the same text, one after the other: the text
// is cut once, and the original runs once.
#ifndef NYB_EVAL_YARDSTICK_H_
#define NYB_EVAL_YARDSTICK_H_

#include "eval/score.h"

typedef struct nyb_yardstick {
    const nyb_eval_params *params;
    nyb_model *original;
    nyb_windows windows;
    nyb_finals finals; // of the original, which comparisons keep
} nyb_yardstick;

// Opens the original and cuts the text with its tokenizer. params outlive the yardstick.
//
// Errors as nyb_compare(). On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_yardstick_open(nyb_yardstick *out, const char *original,
                                            const nyb_eval_params *params, nyb_err *err);
void nyb_yardstick_close(nyb_yardstick *yardstick); // zeroed is fine

// Gives what nyb_compare() of the original and of `folder` says of the latter, or, without
// divergence, what it says of `folder` alone. NULL is the original itself. Errors as nyb_compare().
NYB_NODISCARD nyb_status nyb_yardstick_measure(nyb_yardstick *yardstick, const nyb_context *ctx,
                                               const char *folder, bool divergence,
                                               nyb_compared *row, nyb_err *err);

#endif // NYB_EVAL_YARDSTICK_H_
