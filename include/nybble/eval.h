// eval.h - how well a checkpoint predicts a text, and how far compressed ones are from the
// original.
#ifndef NYB_EVAL_H_
#define NYB_EVAL_H_

#include "nybble/activations.h"
#include "nybble/context.h"
#include "nybble/samples.h"

// Which tokens are scored, and with how much text before them. The text is cut into windows of
// `window` tokens, one every `stride`; each token is scored once, in the first window that has
// it, and never as a window's first. With stride = window (the default) windows do not overlap:
// every token after a window's first is scored. A shorter last window counts too.
typedef struct nyb_eval_params {
    const char *path;  // text, .npy or .json, as in nyb_samples_params
    size_t window;     // tokens, >= 2
    size_t stride;     // in [1, window], 0: window
    size_t max_tokens; // of the file, from its start; 0: all
    nyb_bos bos;       // whether each window begins with the begin-of-sequence token
    // What the inputs of quantised layers are rounded to. Checkpoints of a comparison that have no
    // quantised layer run as they are.
    nyb_activation_kind activations;
} nyb_eval_params;

#define NYB_EVAL_DEFAULTS ((nyb_eval_params){.window = 1024})

typedef struct nyb_eval_result {
    size_t tokens;     // read from the file
    size_t windows;    //
    size_t scored;     // tokens that a probability was taken of
    size_t line_ends;  // CR LF and CR in the text, read as LF
    bool bos;          // windows began with the begin-of-sequence token
    double loss;       // mean negative log-probability of the scored tokens, in nats
    double perplexity; // exp(loss)
    double seconds;
} nyb_eval_result;

// Scores the text with the model in `folder`, quantised or not.
//
// NYB_E_ARG      a parameter is outside its range.
// NYB_E_SHAPE    the file has fewer than 2 tokens.
// NYB_E_NUMERIC  a probability is not a number.
// Others as the model's files give them. *result is undefined after an error.
NYB_API NYB_NODISCARD nyb_status nyb_eval(const nyb_context *ctx, const char *folder,
                                          const nyb_eval_params *params, nyb_eval_result *result,
                                          nyb_err *err);

// One checkpoint of a comparison.
typedef struct nyb_compared {
    size_t bytes; // of its tensor files
    // Of the matrices of all linear layers inside the blocks, and of embedding and head where they
    // are quantised: codes, scales, zero points and group indices; biases left out.
    size_t layer_bytes;
    double bits_per_weight; // 8 * layer_bytes over the number of their weights
    nyb_eval_result eval;
    double kl;   // mean over the scored positions of KL(base || this) in nats; 0 for the base
    double top1; // fraction of positions where both find the same token the most probable
} nyb_compared;

// Compares checkpoints of one architecture on one text. folders[0] is the base that divergence
// and agreement are measured against; the tokens are made by its tokenizer.
//
//   rows  out, [count], in the order of folders
//
// NYB_E_SHAPE  a folder's hidden size or vocabulary is not the base's.
// Others as nyb_eval().
NYB_API NYB_NODISCARD nyb_status nyb_compare(const nyb_context *ctx, const char *const *folders,
                                             size_t count, const nyb_eval_params *params,
                                             nyb_compared *rows, nyb_err *err);

#endif // NYB_EVAL_H_
