// gguf_names.h - what the tensors of a GGUF file are called in a Hugging Face folder, and what
// was done to them on the way. A family is a line in archs[] (gguf_names.c).
#ifndef NYB_FORMATS_GGUF_NAMES_H_
#define NYB_FORMATS_GGUF_NAMES_H_

#include "formats/gguf.h"

typedef struct nyb_gguf_pair {
    const char *gguf, *folder; // inside a block, or of the whole model
} nyb_gguf_pair;

typedef struct nyb_gguf_arch {
    const char *name;         // general.architecture
    const char *model_type;   // of config.json
    bool paired;              // rows of q and k lie in pairs (nyb_tensor.paired_rows)
    bool norm_plus_one;       // gains are stored with 1 added
    const nyb_gguf_pair *own; // names that differ from the common ones; ends with a NULL
} nyb_gguf_arch;

// NULL when there is none.
const nyb_gguf_arch *nyb_gguf_arch_named(const char *name, size_t length);
const nyb_gguf_arch *nyb_gguf_arch_of_model(const char *model_type);
const nyb_gguf_arch *nyb_gguf_arch_at(size_t index);

// The name in a folder of a tensor in a file, and the other way round, in the arena. A name that
// has no counterpart comes back as it is. NULL when there is no room.
const char *nyb_gguf_folder_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name);
const char *nyb_gguf_file_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name);

// The file's tensors as those of a Hugging Face folder, in the file's arena: renamed, gains as
// they were, q and k marked where their rows lie in pairs. A file of an architecture that is not
// in the table keeps its names.
//
// NYB_E_FORMAT  q or k has rows that are no multiple of its heads.
// NYB_E_NOMEM   no room.
NYB_NODISCARD nyb_status nyb_gguf_as_folder(nyb_gguf *file, nyb_tensor **out, size_t *count,
                                            nyb_err *err);

#endif // NYB_FORMATS_GGUF_NAMES_H_
