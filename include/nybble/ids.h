// ids.h - token ids that were made elsewhere, read from a file.
#ifndef NYB_IDS_H_
#define NYB_IDS_H_

#include <stddef.h>
#include <stdint.h>

#include "nybble/status.h"

// Sequences of token ids; sequence i is at[starts[i]] ... at[starts[i + 1] - 1].
typedef struct nyb_ids {
    int64_t *at;
    size_t *starts; // [samples + 1]
    size_t samples;
    size_t length; // of every sequence, 0: they differ
} nyb_ids;

// Reads a .npy array of whole numbers (one axis: one sequence; two: [samples, length]) or a JSON
// file (a list of numbers, or a list of such lists, whose lengths may differ). Ids are not
// compared with any vocabulary here.
//
// NYB_E_IO           the file is missing or unreadable.
// NYB_E_FORMAT       not such a file; an empty sequence; an id that is negative or above 2^31 - 1
//                    (err has its position).
// NYB_E_UNSUPPORTED  an array of another type or number of axes.
// NYB_E_NOMEM        no room. On every error *out is zeroed.
NYB_API NYB_NODISCARD nyb_status nyb_ids_load(nyb_ids *out, const char *path, nyb_err *err);

// Frees the arrays and zeroes ids. A zeroed one is fine.
NYB_API void nyb_ids_clear(nyb_ids *ids);

#endif // NYB_IDS_H_
