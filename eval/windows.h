// windows.h - a text cut into windows for scoring.
#ifndef NYB_EVAL_WINDOWS_H_
#define NYB_EVAL_WINDOWS_H_

#include "calib/samples.h"
#include "nybble/eval.h"

typedef struct nyb_window {
    size_t start, length; // of its ids in nyb_windows.ids, the begin token included
    size_t first;         // index in the window of the first token that is scored, >= 1
} nyb_window;

typedef struct nyb_windows {
    nyb_stream stream; // owns everything
    size_t tokens;     // of the file, within max_tokens
    nyb_window *at;    // [count]
    size_t count;
    uint32_t *ids; // of all windows, one behind the other
    size_t scored; // tokens
    nyb_activation_kind activations;
} nyb_windows;

// Errors as nyb_eval(); out holds nothing then.
NYB_NODISCARD nyb_status nyb_windows_open(nyb_windows *out, const nyb_model *model,
                                          const nyb_eval_params *params, nyb_err *err);
void nyb_windows_close(nyb_windows *windows); // zeroed is fine

// Windows that are run together, from `first` on: as many as have no more than 32,768 tokens, at
// least one. A property of the windows alone, so that results do not depend on the machine.
size_t nyb_windows_batch(const nyb_windows *windows, size_t first);

#endif // NYB_EVAL_WINDOWS_H_
