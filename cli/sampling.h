// sampling.h - the options by which `quantize`, `plan` and `calibrate` cut texts into windows.
#ifndef NYB_CLI_SAMPLING_H_
#define NYB_CLI_SAMPLING_H_

#include "cli/command.h"
#include "nybble/samples.h"

typedef struct nyb_sampling {
    nyb_texts calib;
    size_t num_samples, sequence_length, seed, first_weight;
    int bos;
} nyb_sampling;

extern const char *const nyb_bos_words[], *const nyb_expert_tokens[];

// The row of --bos, an int.
#define NYB_BOS_OPTION(type, field)                                                                \
    {                                                                                              \
        "bos", 0, NYB_OPTION_CHOICE, NYB_INTO(type, field),                                        \
            .choices = nyb_bos_words, .value = "WHEN",                                             \
            .about = "Whether each window begins with the begin-of-sequence token. auto: as the "  \
                     "model's tokenizer does it."                                                  \
    }

// Rows of a command's table, whose options struct has the nyb_sampling `of`.
#define NYB_SAMPLING_OPTIONS(type, of)                                                             \
    {                                                                                              \
        "num-samples",                                                                             \
        'n',                                                                                       \
        NYB_OPTION_SIZE,                                                                           \
        NYB_INTO(type, of.num_samples),                                                            \
        .value = "N",                                                                              \
        .min = 1,                                                                                  \
        .max = 1e7,                                                                                \
        .about = "Windows of text; fewer, with a warning, when the text is shorter."},             \
        {"sequence-length", 'l',      NYB_OPTION_SIZE, NYB_INTO(type, of.sequence_length),         \
         .value = "N",      .min = 2, .max = 1e7,      .about = "Tokens of a window."},            \
        NYB_BOS_OPTION(type, of.bos),                                                              \
        {"first-weight",                                                                           \
         0,                                                                                        \
         NYB_OPTION_SIZE,                                                                          \
         NYB_INTO(type, of.first_weight),                                                          \
         .value = "N",                                                                             \
         .min = 1,                                                                                 \
         .max = NYB_FIRST_WEIGHT_MOST,                                                             \
         .about = "How often the first token of each window counts in the Hessians. Many models "  \
                  "put attention there that has nowhere else to go, so that all tokens suffer "    \
                  "from its errors: 16 gains much with these."},                                   \
    {                                                                                              \
        "seed", 's', NYB_OPTION_SIZE, NYB_INTO(type, of.seed),                                     \
            .value = "N", .shown_default = "",                                                     \
            .about = "Draw the windows at random, with this seed; else they are the text's first." \
    }

// The library's parameters, as far as these options tell them.
nyb_samples_params nyb_sampling_params(const nyb_call *call, const nyb_sampling *of);

#endif // NYB_CLI_SAMPLING_H_
