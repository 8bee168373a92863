// unigram.h - the most probable way to cut one piece of text into tokens, each of which has a
// probability of its own.
//
// Source: Kudo, "Subword Regularization", arXiv:1804.10959, section 3.2 (the Viterbi search).
//         Scores are logarithms of probabilities. Of equally good cuts the tokenizers library
//         keeps the one that it finds first, and so does this.
#ifndef NYB_MODEL_UNIGRAM_H_
#define NYB_MODEL_UNIGRAM_H_

#include "model/byte_trie.h"
#include "model/vocabulary.h"
#include "nybble/tokenizer.h"

// Every field of the first part is set before nyb_unigram_finish() and left alone after it.
typedef struct nyb_unigram {
    const nyb_vocabulary *vocabulary;
    const double *scores; // [vocabulary->size] by id; NaN: the token is not for text
    double unknown_score; // of one character without a token
    int64_t unknown;      // stands for such text; -1: such text is an error
    bool byte_fallback;   // such text becomes its bytes' tokens where all of them are there
    // As the sentencepiece library: sums in single precision, and neighbours without a token are
    // not looked up together.
    bool single;

    int64_t byte_ids[256]; // of "<0x00>" and so on, -1: none
    nyb_byte_trie trie;
} nyb_unigram;

NYB_NODISCARD nyb_status nyb_unigram_finish(nyb_unigram *model, nyb_err *err);
void nyb_unigram_clear(nyb_unigram *model); // zeroed is fine

// Working memory of one encoding, zero-initialised at first. Not shared between threads.
typedef struct nyb_unigram_node nyb_unigram_node;
typedef struct nyb_unigram_scratch {
    nyb_unigram_node *nodes; // [room] by byte
    size_t room;
    uint32_t *path; // [path_room] ids from the end
    size_t *starts; // [path_room] where each begins
    size_t path_room;
} nyb_unigram_scratch;

void nyb_unigram_scratch_clear(nyb_unigram_scratch *scratch);

// Appends the ids of a piece of valid UTF-8. Time grows with its length times that of the longest
// token.
//
// NYB_E_FORMAT  text without a token, and the unknown token is missing.
NYB_NODISCARD nyb_status nyb_unigram_encode(const nyb_unigram *model, nyb_unigram_scratch *scratch,
                                            const char *text, size_t length, nyb_tokens *out,
                                            nyb_err *err);

#endif // NYB_MODEL_UNIGRAM_H_
