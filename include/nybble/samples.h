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

// Which tokens count in the Hessians. The others still are what those attend to.
typedef enum nyb_loss_mask {
    NYB_LOSS_MASK_NONE = 0,  // all of them
    NYB_LOSS_MASK_ASSISTANT, // what the assistant says; needs `chat`
} nyb_loss_mask;

enum { NYB_FIRST_WEIGHT_MOST = 1 << 20 };

typedef struct nyb_samples_params {
    // Files, each of which is text in UTF-8 (line ends CR LF and CR are read as LF); JSON lines
    // (.jsonl, .ndjson), a text or a conversation each; a .npy file of int32 or int64, [tokens] or
    // [samples, length]; or a .json file, a list of ids or a list of lists of equal length. Behind
    // the name may stand ":WEIGHT", a number above 0: the file's share of the windows (default 1)
    // against that of the others.
    const char *const *paths;
    size_t path_count; // 0: no data
    size_t count;      // windows wanted of all files together, >= 1
    bool counted;      // of a Keras model, whose samples are arrays: take `count`, else all of them
    size_t length;     // tokens of a window, >= 2; ready-made [samples, length] ids are cut to it
    nyb_bos bos;       // for text; ready-made ids and conversations are taken as they are
    // false: the first windows of each file. true: windows drawn at random with `seed`, without
    // repetition, in the order of the file.
    bool shuffle;
    uint64_t seed;
    // false: documents are put one behind the other and cut into windows. true: a window is one
    // document, or as much of it as a window holds.
    bool per_document;
    bool chat; // JSON lines are conversations, for the model's chat template (nybble/chat.h)
    nyb_loss_mask loss_mask;
    // How often the first token of each window counts in the Hessians, at most
    // NYB_FIRST_WEIGHT_MOST; 0: once.
    size_t first_weight;
    const char *text_field; // of JSON lines, NULL: "text"
} nyb_samples_params;

#define NYB_SAMPLES_DEFAULTS ((nyb_samples_params){.count = 128, .length = 2048})

#endif // NYB_SAMPLES_H_
