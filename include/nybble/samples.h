// samples.h - token ids for calibration and evaluation: from text, through the model's own
// tokenizer, or ready-made from a .npy or .json file.
#ifndef NYB_SAMPLES_H_
#define NYB_SAMPLES_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nybble/status.h"

// Whether each window begins with the tokenizer's begin-of-sequence token, in place of one token
// of text.
typedef enum nyb_bos {
    NYB_BOS_AUTO = 0, // as the tokenizer does it for a text of its own
    NYB_BOS_NEVER,
    NYB_BOS_ALWAYS,
} nyb_bos;

typedef struct nyb_samples_params {
    // A text file in UTF-8 (line ends CR LF and CR are read as LF); a .npy file of int32 or int64,
    // [tokens] or [samples, length]; or a .json file, a list of ids or a list of lists of equal
    // length.
    const char *path;
    size_t count;  // windows wanted, >= 1
    size_t length; // tokens of a window, >= 2; ready-made [samples, length] ids are cut to it
    nyb_bos bos;   // for text; ready-made ids are taken as they are
    // false: the first windows of the text. true: windows drawn at random with `seed`, without
    // repetition, in the order of the text.
    bool shuffle;
    uint64_t seed;
} nyb_samples_params;

#define NYB_SAMPLES_DEFAULTS ((nyb_samples_params){.count = 128, .length = 2048})

#endif // NYB_SAMPLES_H_
