// ids.h - ready-made token ids from a file.
#ifndef NYB_FORMATS_IDS_H_
#define NYB_FORMATS_IDS_H_

#include "core/arena.h"

// Token ids as a file holds them.
typedef struct nyb_ids {
    uint32_t *at; // [samples * length], in the arena
    size_t samples, length;
    bool stream; // one long row: the file had one axis
} nyb_ids;

// Whether the name says that a file holds ids instead of text: it ends in .npy or .json.
bool nyb_ids_named(const char *path);

// Reads a .npy file of integers, [tokens] or [samples, length], or a .json file: a list of ids or
// a list of lists of equal length.
//
//   vocabulary  every id has to be below it
//
// NYB_E_IO      the system refused.
// NYB_E_FORMAT  the file breaks its format, has no ids, or holds an id outside the vocabulary
//               (err names its position).
// NYB_E_SHAPE   more than two axes, or rows of different length.
NYB_NODISCARD nyb_status nyb_ids_load(nyb_ids *out, nyb_arena *arena, const char *path,
                                      size_t vocabulary, nyb_err *err);

#endif // NYB_FORMATS_IDS_H_
