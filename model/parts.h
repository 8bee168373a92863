// parts.h - reading the parts of a tokenizer.json: what normalizers, pre-tokenizers, decoders
// and post-processors have in common.
#ifndef NYB_MODEL_PARTS_H_
#define NYB_MODEL_PARTS_H_

#include <jansson.h>

#include "core/arena.h"
#include "model/pieces.h"

// Where a part being read goes.
typedef struct nyb_part {
    void *list; // its first node's place
    nyb_arena *arena;
    const char *name; // of the file
} nyb_part;

// The part's "type". NYB_E_FORMAT when the value is no object or has none.
NYB_NODISCARD nyb_status nyb_part_type(const json_t *value, const char *what, const char **type,
                                       const char *name, nyb_err *err);

// Calls load() for the value, or, when it is a "Sequence", for each of its members listed under
// `members` (Sequences in them likewise). null and a missing value are no parts.
typedef nyb_status nyb_part_loader(const nyb_part *part, const json_t *value, nyb_err *err);
NYB_NODISCARD nyb_status nyb_part_each(const json_t *value, const char *members,
                                       const nyb_part *part, nyb_part_loader *load, nyb_err *err);

// A copy of the string value[key], which has to be there.
NYB_NODISCARD nyb_status nyb_part_text(const json_t *value, const char *key, nyb_arena *arena,
                                       const char **text, size_t *length, const char *name,
                                       nyb_err *err);

// value[key] as one character of text.
NYB_NODISCARD nyb_status nyb_part_char(const json_t *value, const char *key, nyb_arena *arena,
                                       const char **text, size_t *length, const char *name,
                                       nyb_err *err);

// The pattern in value["pattern"]: {"String": text} or {"Regex": expression}.
NYB_NODISCARD nyb_status nyb_part_pattern(const json_t *value, nyb_pattern **out, const char *name,
                                          nyb_err *err);

// Appends the text with every match replaced.
NYB_NODISCARD nyb_status nyb_part_replace(const nyb_pattern *pattern, const char *with,
                                          size_t with_length, const char *text, size_t length,
                                          nyb_bytes *out, nyb_pieces *pieces, nyb_err *err);

#endif // NYB_MODEL_PARTS_H_
