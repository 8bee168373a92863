// pieces.h - a text cut into pieces, and the working memory of the steps that cut it.
#ifndef NYB_MODEL_PIECES_H_
#define NYB_MODEL_PIECES_H_

#include "model/pattern.h"

// What a cut does with the matches of its pattern.
typedef enum nyb_cut_behavior {
    NYB_CUT_REMOVED,
    NYB_CUT_ISOLATED,
    NYB_CUT_MERGED_WITH_PREVIOUS,
    NYB_CUT_MERGED_WITH_NEXT,
    NYB_CUT_CONTIGUOUS,
} nyb_cut_behavior;

// Zero-initialised it is valid and empty. The flag of a piece says that it is where the whole
// input starts.
typedef struct nyb_pieces {
    nyb_bytes text, spare_text; // the pieces' text; what the next step writes
    nyb_ranges now, next;       // the pieces; what the next step makes of them
    nyb_ranges found;           // matches within one piece
    nyb_matcher *matcher;       // made when first needed
} nyb_pieces;

void nyb_pieces_clear(nyb_pieces *pieces);

// Cuts every piece. The ranges in `found` that `find` appends for a piece are relative to it and
// cover it, with the flag set on matches (nyb_pattern_find() is the model).
typedef nyb_status nyb_finder(const void *arg, nyb_pieces *pieces, const char *text, size_t length,
                              nyb_err *err);
NYB_NODISCARD nyb_status nyb_pieces_cut(nyb_pieces *pieces, nyb_finder *find, const void *arg,
                                        nyb_cut_behavior behavior, nyb_err *err);

// A finder for patterns: arg is a nyb_pattern.
nyb_status nyb_find_pattern(const void *arg, nyb_pieces *pieces, const char *text, size_t length,
                            nyb_err *err);

// Appends a match for each character for which `is` holds, and what lies between them.
void nyb_find_chars(nyb_pieces *pieces, const char *text, size_t length, bool (*is)(uint32_t c));

// Turns matches into gaps and gaps into matches.
void nyb_pieces_invert(nyb_pieces *pieces);

// Rewrites every piece: `write` appends its new text to spare_text.
typedef void nyb_rewriter(const void *arg, nyb_pieces *pieces, const char *text, size_t length,
                          bool at_start);
NYB_NODISCARD nyb_status nyb_pieces_rewrite(nyb_pieces *pieces, nyb_rewriter *write,
                                            const void *arg, nyb_err *err);

#endif // NYB_MODEL_PIECES_H_
