// logits.h - the model's scores for every token of the vocabulary at every position.
#ifndef NYB_LOGITS_H_
#define NYB_LOGITS_H_

#include "nybble/context.h"

// What a run of nyb_logits() wrote.
typedef struct nyb_logits_result {
    size_t samples, length;
    size_t vocab; // of a sequence classifier: its labels; of an encoder alone: its width
} nyb_logits_result;

// Runs the model in `folder` over token ids and writes an f32 array file of
// [samples, length, vocab]; row t of a sample holds the scores for the token after position t.
// Of a sequence classifier: [samples, labels]; of an encoder without a head: its last states,
// [samples, length, hidden]. All arithmetic is f32, whatever type the checkpoint
// stores, unless ctx->compute is bf16.
//
//   tokens  path of the ids: .npy of integers, [tokens] (one sample) or [samples, length], or JSON
//           likewise; each sample runs on its own, from position 0
//   path    of the .npy file, written beside and renamed; ctx->memory_bytes bounds how many
//           samples run together
//   result  out, may be NULL
//
// NYB_E_FORMAT, NYB_E_SHAPE  the ids' file is not such a file, or an id is outside the
//                            vocabulary; err names its position.
// Others as the model's files give them; on an error no file is left behind.
NYB_API NYB_NODISCARD nyb_status nyb_logits(const nyb_context *ctx, const char *folder,
                                            const char *tokens, const char *path,
                                            nyb_logits_result *result, nyb_err *err);

#endif // NYB_LOGITS_H_
