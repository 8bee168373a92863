// logits.h - the model's scores for every token of the vocabulary at every position.
#ifndef NYB_LOGITS_H_
#define NYB_LOGITS_H_

#include "nybble/context.h"
#include "nybble/ids.h"

// Runs the model in `folder` over token ids and writes an f32 array file of
// [samples, length, vocab]; row t of a sample holds the scores for the token after position t.
// All arithmetic is f32, whatever type the checkpoint stores.
//
//   ids   sequences of one length; each runs on its own, from position 0
//   path  of the .npy file, written beside and renamed; ctx->memory_bytes bounds how many
//         sequences run together
//
// NYB_E_SHAPE  the sequences' lengths differ.
// NYB_E_ARG    an id is outside the vocabulary; err has its position.
// Others as the model's files give them; on an error no file is left behind.
NYB_API NYB_NODISCARD nyb_status nyb_logits(const nyb_context *ctx, const char *folder,
                                            const nyb_ids *ids, const char *path, nyb_err *err);

#endif // NYB_LOGITS_H_
