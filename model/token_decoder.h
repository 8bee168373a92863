// token_decoder.h - the steps that turn the texts of tokens into text: a list of nodes, each of
// a kind from one table.
#ifndef NYB_MODEL_TOKEN_DECODER_H_
#define NYB_MODEL_TOKEN_DECODER_H_

#include <jansson.h>

#include "core/arena.h"
#include "model/pieces.h"

typedef struct nyb_decoder nyb_decoder;
typedef struct nyb_decoder_kind nyb_decoder_kind;

struct nyb_decoder {
    const nyb_decoder_kind *kind;
    nyb_decoder *next;    // runs after this one
    nyb_pattern *pattern; // Replace
    const char *text;     // what is looked for, or put in
    size_t length;
    size_t start, stop; // Strip: at most so many from the start, from the end
    bool drop_first;    // Metaspace: spaces of the first token go
    bool cleanup;       // WordPiece: spaces before punctuation go
};

// Reads the "decoder" value of a tokenizer.json, Sequences flattened; null gives NULL. Patterns
// are freed by nyb_decoder_clear(), the rest is the arena's. `name` is the file.
//
// NYB_E_UNSUPPORTED  a kind that nybble does not have, by its name.
NYB_NODISCARD nyb_status nyb_decoder_load(nyb_decoder **out, nyb_arena *arena, const json_t *value,
                                          const char *name, nyb_err *err);
void nyb_decoder_clear(nyb_decoder *list); // NULL is fine

// Runs all steps on the pieces, each of which is a token's text at first.
NYB_NODISCARD nyb_status nyb_decoder_run(const nyb_decoder *list, nyb_pieces *pieces, nyb_err *err);

#endif // NYB_MODEL_TOKEN_DECODER_H_
