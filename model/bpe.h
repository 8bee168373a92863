// bpe.h - byte pair encoding of one piece of text.
//
// Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword
//         Units", arXiv:1508.07909. The symbols of a piece are merged pair by pair: of all pairs
//         that have a rule the one with the lowest rank goes first, of equal ones the leftmost.
#ifndef NYB_MODEL_BPE_H_
#define NYB_MODEL_BPE_H_

#include "model/bytes.h"
#include "model/vocabulary.h"
#include "nybble/tokenizer.h"

typedef struct nyb_merge {
    uint32_t left, right; // symbols
    uint32_t rank;        // lower ones go first
    uint32_t result;
} nyb_merge;

// Every field is set before nyb_bpe_finish() and left alone after it.
typedef struct nyb_bpe {
    const nyb_vocabulary *vocabulary;
    nyb_merge *merges; // [merge_count] of equal pairs the last one counts
    size_t merge_count;
    const char *prefix, *suffix; // of symbols inside a word, of a word's last one; never NULL
    int64_t unknown;             // stands for text without a symbol; -1: such text is dropped
    bool unknown_missing;        // one is named and the vocabulary has none: such text is an error
    bool fuse_unknown;           // neighbours of this kind become one token
    bool byte_fallback;          // text without a symbol becomes its bytes' tokens
    bool whole_first;            // a piece that is a token is that token, whatever the merges say
    int64_t byte_ids[256];       // of "<0x00>" and so on, -1: none

    // Made by nyb_bpe_finish().
    nyb_merge *table;   // [table_mask + 1] open addressing by pair, result NYB_NO_SYMBOL: free
    uint64_t *may_join; // [join_mask + 1] pairs of first symbols that some merge puts together
    size_t table_mask, join_mask;
    bool can_cut; // may_join tells where a piece falls apart
} nyb_bpe;

// Finds byte_ids and builds the tables in the arena.
NYB_NODISCARD nyb_status nyb_bpe_finish(nyb_bpe *bpe, nyb_arena *arena, nyb_err *err);

// Working memory of one encoding, zero-initialised at first. Not shared between threads.
typedef struct nyb_bpe_scratch nyb_bpe_scratch;
NYB_NODISCARD nyb_status nyb_bpe_scratch_new(nyb_bpe_scratch **out, nyb_err *err);
void nyb_bpe_scratch_free(nyb_bpe_scratch *scratch); // NULL is fine

// Appends the ids of a piece of valid UTF-8. Time grows as n log n with its length.
//
// NYB_E_FORMAT  text without a symbol, and the unknown token is missing.
NYB_NODISCARD nyb_status nyb_bpe_encode(const nyb_bpe *bpe, nyb_bpe_scratch *scratch,
                                        const char *text, size_t length, nyb_tokens *out,
                                        nyb_err *err);

#endif // NYB_MODEL_BPE_H_
