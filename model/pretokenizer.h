// pretokenizer.h - the steps that cut normalized text into pieces, none of which a token
// crosses: a list of nodes, each of a kind from one table.
#ifndef NYB_MODEL_PRETOKENIZER_H_
#define NYB_MODEL_PRETOKENIZER_H_

#include <jansson.h>

#include "core/arena.h"
#include "model/pieces.h"

typedef struct nyb_pretokenizer nyb_pretokenizer;
typedef struct nyb_pretokenizer_kind nyb_pretokenizer_kind;

typedef enum nyb_prefix_scheme {
    NYB_PREFIX_NEVER,
    NYB_PREFIX_FIRST, // on the piece that starts the input
    NYB_PREFIX_ALWAYS,
} nyb_prefix_scheme;

struct nyb_pretokenizer {
    const nyb_pretokenizer_kind *kind;
    nyb_pretokenizer *next; // runs after this one
    nyb_pattern *pattern;
    nyb_cut_behavior behavior;
    bool invert;              // what lies between the matches is matched
    nyb_prefix_scheme prefix; // a space in front: ByteLevel, Metaspace
    const char *symbol;       // Metaspace: in a space's place; CharDelimiterSplit: the delimiter
    size_t symbol_length;
    bool split; // Metaspace, ByteLevel: cut as well
};

// Reads the "pre_tokenizer" value of a tokenizer.json, Sequences flattened; null gives NULL.
// Patterns are freed by nyb_pretokenizer_clear(), the rest is the arena's. `name` is the file.
//
// NYB_E_UNSUPPORTED  a kind that nybble does not have, by its name.
NYB_NODISCARD nyb_status nyb_pretokenizer_load(nyb_pretokenizer **out, nyb_arena *arena,
                                               const json_t *value, const char *name, nyb_err *err);

// Metaspace without cuts, as a SentencePiece model needs it.
NYB_NODISCARD nyb_status nyb_pretokenizer_metaspace(nyb_pretokenizer **out, nyb_arena *arena,
                                                    nyb_prefix_scheme prefix, nyb_err *err);

void nyb_pretokenizer_clear(nyb_pretokenizer *list); // NULL is fine

// Whether some step turns bytes into GPT-2's alphabet.
bool nyb_pretokenizer_is_byte_level(const nyb_pretokenizer *list);

// Runs all steps on the pieces.
NYB_NODISCARD nyb_status nyb_pretokenizer_run(const nyb_pretokenizer *list, nyb_pieces *pieces,
                                              nyb_err *err);

// The scheme of a Metaspace value: "prepend_scheme", or "add_prefix_space" of older files.
NYB_NODISCARD nyb_status nyb_prefix_scheme_read(const json_t *value, nyb_prefix_scheme *out,
                                                const char *name, nyb_err *err);

#endif // NYB_MODEL_PRETOKENIZER_H_
