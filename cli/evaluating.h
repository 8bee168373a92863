// evaluating.h - the options that `eval` and `compare` share.
#ifndef NYB_CLI_EVALUATING_H_
#define NYB_CLI_EVALUATING_H_

#include "cli/command.h"
#include "cli/sampling.h"
#include "nybble/eval.h"

typedef struct nyb_evaluating {
    const char *text;
    size_t window, stride, max_tokens;
    int bos, activations;
} nyb_evaluating;

#define NYB_EVALUATING_DEFAULTS                                                                    \
    {                                                                                              \
        .window = 1024                                                                             \
    }

extern const char *const nyb_activation_words[];

// The head of a command's table, whose options struct begins with the nyb_evaluating `of`.
#define NYB_EVALUATING_OPTIONS(type, of)                                                           \
    {"text",                                                                                       \
     't',                                                                                          \
     NYB_OPTION_PATH,                                                                              \
     NYB_INTO(type, of.text),                                                                      \
     .value = "FILE",                                                                              \
     .required = true,                                                                             \
     .about = "Text to score, or token ids in .npy or .json."},                                    \
        {"window",     'w',      NYB_OPTION_SIZE, NYB_INTO(type, of.window),                       \
         .value = "N", .min = 2, .max = 1e7,      .about = "Tokens that the model sees at once."}, \
        {"stride",                                                                                 \
         0,                                                                                        \
         NYB_OPTION_SIZE,                                                                          \
         NYB_INTO(type, of.stride),                                                                \
         .value = "N",                                                                             \
         .shown_default = "the window",                                                            \
         .about = "Tokens from one window's start to the next; with less than the window, each "   \
                  "token is scored in the first window that has it."},                             \
        {"max-tokens",                                                                             \
         0,                                                                                        \
         NYB_OPTION_SIZE,                                                                          \
         NYB_INTO(type, of.max_tokens),                                                            \
         .value = "N",                                                                             \
         .shown_default = "all",                                                                   \
         .about = "Score the first N tokens of the text."},                                        \
        NYB_BOS_OPTION(type, of.bos),                                                              \
    {                                                                                              \
        "activations", 'a', NYB_OPTION_CHOICE, NYB_INTO(type, of.activations),                     \
            .choices = nyb_activation_words, .value = "WHAT",                                      \
            .about = "What the inputs of quantised layers are rounded to, as machines do it that " \
                     "multiply 8-bit numbers: int8 and float8 have a scale for all tokens of a "   \
                     "window, or for each token; where the checkpoint has a scale for the input, " \
                     "that one."                                                                   \
    }

nyb_eval_params nyb_evaluating_params(const nyb_call *call);

// How the text was scored, in one line: "40,960 tokens in 40 windows of 1,024, ...".
void nyb_evaluating_print(const nyb_eval_params *params, const nyb_eval_result *result);
json_t *nyb_evaluating_json(const nyb_eval_params *params, const nyb_eval_result *result);

#endif // NYB_CLI_EVALUATING_H_
