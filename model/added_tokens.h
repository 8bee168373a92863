// added_tokens.h - tokens that are looked for in the text before anything else cuts it.
#ifndef NYB_MODEL_ADDED_TOKENS_H_
#define NYB_MODEL_ADDED_TOKENS_H_

#include "model/pieces.h"
#include "model/vocabulary.h"

typedef struct nyb_added_token {
    const char *text; // owned by whoever adds it
    size_t length;
    uint32_t id;
    bool special;        // left out by decoding on request
    bool normalized;     // looked for in normalized text
    bool single_word;    // no word character may touch it
    bool lstrip, rstrip; // takes the white space on that side along
    const char *pattern; // its text as it is looked for: normalized where `normalized` says so
    size_t pattern_length;
} nyb_added_token;

typedef struct nyb_trie nyb_trie;

// Zero-initialised it is valid and empty.
typedef struct nyb_added_tokens {
    nyb_added_token *at;
    size_t count, room;
    uint32_t *by_id; // [id_room] index + 1, 0: no such token
    size_t id_room;
    nyb_trie *raw, *normalized; // tokens of each sort; NULL: none
} nyb_added_tokens;

// Adds a token, or replaces the one with the same id, which has to be below
// NYB_TOKEN_ID_LIMIT.
NYB_NODISCARD nyb_status nyb_added_tokens_put(nyb_added_tokens *added, nyb_added_token token,
                                              nyb_err *err);

// The token with this id, or NULL.
const nyb_added_token *nyb_added_tokens_at(const nyb_added_tokens *added, uint32_t id);

// Builds the tries, when every token is there with its pattern.
NYB_NODISCARD nyb_status nyb_added_tokens_finish(nyb_added_tokens *added, nyb_err *err);
void nyb_added_tokens_clear(nyb_added_tokens *added);

// A stretch of text: an added token, or what is between two.
typedef struct nyb_segment {
    size_t begin, end;
    const nyb_added_token *token; // NULL: text
} nyb_segment;

typedef struct nyb_segments {
    nyb_segment *at;
    size_t count, room;
} nyb_segments;

void nyb_segments_clear(nyb_segments *segments);

// Cuts the text at the tokens of one sort, the leftmost first and of those the longest. Empty
// text has no segments.
NYB_NODISCARD nyb_status nyb_added_tokens_cut(const nyb_added_tokens *added, bool normalized,
                                              const char *text, size_t length, nyb_segments *out,
                                              nyb_err *err);

#endif // NYB_MODEL_ADDED_TOKENS_H_
