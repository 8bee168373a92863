// postprocessor.h - what is added around the ids of a text: begin-of-text and the like.
#ifndef NYB_MODEL_POSTPROCESSOR_H_
#define NYB_MODEL_POSTPROCESSOR_H_

#include <jansson.h>

#include "core/status.h"
#include "nybble/tokenizer.h"

// Zero-initialised it adds nothing.
typedef struct nyb_postprocessor {
    nyb_tokens before, after; // ids in front of the text's, in order; ids behind them
} nyb_postprocessor;

// Reads the "post_processor" value of a tokenizer.json (what it does with one text), Sequences
// nested as they run; null adds nothing. `name` is the file.
//
// NYB_E_UNSUPPORTED  a kind that nybble does not have, by its name.
NYB_NODISCARD nyb_status nyb_postprocessor_load(nyb_postprocessor *out, const json_t *value,
                                                const char *name, nyb_err *err);
void nyb_postprocessor_clear(nyb_postprocessor *p);

#endif // NYB_MODEL_POSTPROCESSOR_H_
