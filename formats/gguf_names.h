// gguf_names.h - what the tensors of a GGUF file are called in a Hugging Face folder, and what
// was done to them on the way. A family is a line in archs[] (gguf_names.c).
#ifndef NYB_FORMATS_GGUF_NAMES_H_
#define NYB_FORMATS_GGUF_NAMES_H_

#include "formats/gguf.h"

// Inside a block, or of the whole model. A '*' in the folder's name stands for an expert's number:
// the matrices of all experts are one tensor in the file.
typedef struct nyb_gguf_pair {
    const char *gguf, *folder;
} nyb_gguf_pair;

typedef struct nyb_gguf_arch {
    const char *name;       // general.architecture
    const char *model_type; // of config.json
    const char *class;      // of transformers
    // Of entries with one name the first counts whose marker is a module of the file's first block
    // (its GGUF name), and of those with one model_type the first whose marker is one of the
    // folder's. NULL: always.
    const nyb_gguf_pair *marker;
    const char *blocks;                       // what a block's number follows in a folder
    const nyb_gguf_pair *whole, *own, *parts; // of the model; of a block: those in `own` first
    bool paired;                              // rows of q and k lie in pairs
    bool flat;                                // q, k, v one after the other; in a folder by group
    bool norm_plus_one;                       // gains are stored with 1 added
    bool windowless;                          // readers know of no window
} nyb_gguf_arch;

// NULL behind the last.
const nyb_gguf_arch *nyb_gguf_arch_at(size_t index);

// NULL when there is none. has() tells whether a folder has a tensor of this name; NULL: it is not
// known, and the first entry is taken.
const nyb_gguf_arch *nyb_gguf_arch_of_file(const nyb_gguf *file, nyb_gguf_text name);
const nyb_gguf_arch *nyb_gguf_arch_of_model(const char *model_type,
                                            bool (*has)(const void *folder, const char *name),
                                            const void *folder);

enum { NYB_GGUF_NO_EXPERT = -1 };

// The name in a folder of a tensor in a file, of one expert where it holds those of all, and the
// other way round, in the arena. A name that has no counterpart comes back as it is. NULL when
// there is no room.
const char *nyb_gguf_folder_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name,
                                 int expert);
const char *nyb_gguf_file_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name,
                               int *expert);

// Whether a tensor of a file is a table of divisors of the rotary positions, which in a folder are
// a part of the configuration.
bool nyb_gguf_is_divisors(const char *name);

// The file's tensors as those of a Hugging Face folder, in the file's arena: renamed, experts each
// on their own, gains as they were, rows of q, k and v marked where they lie otherwise. A file of
// an architecture that is not in the table keeps its names.
//
// NYB_E_FORMAT  q, k or v has rows that are no multiple of its heads; more experts than there are.
// NYB_E_NOMEM   no room.
NYB_NODISCARD nyb_status nyb_gguf_as_folder(nyb_gguf *file, nyb_tensor **out, size_t *count,
                                            nyb_err *err);

#endif // NYB_FORMATS_GGUF_NAMES_H_
