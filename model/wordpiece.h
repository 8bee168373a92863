// wordpiece.h - one word as the longest tokens that it starts with, again and again.
//
// Source: Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers
//         for Language Understanding", arXiv:1810.04805; the ids are those of the tokenizers
//         library.
#ifndef NYB_MODEL_WORDPIECE_H_
#define NYB_MODEL_WORDPIECE_H_

#include "model/byte_trie.h"
#include "model/vocabulary.h"
#include "nybble/tokenizer.h"

// Every field of the first part is set before nyb_wordpiece_finish() and left alone after it.
typedef struct nyb_wordpiece {
    const nyb_vocabulary *vocabulary;
    const char *prefix;  // of tokens inside a word; never NULL
    int64_t unknown;     // stands for a word without tokens; -1: such a word is an error
    size_t longest_word; // characters; a longer word is unknown

    nyb_byte_trie words, rest; // tokens that start a word; those with the prefix, without it
} nyb_wordpiece;

NYB_NODISCARD nyb_status nyb_wordpiece_finish(nyb_wordpiece *model, nyb_err *err);
void nyb_wordpiece_clear(nyb_wordpiece *model); // zeroed is fine

// Appends the ids of a word of valid UTF-8.
//
// NYB_E_FORMAT  the word has no tokens, and the unknown token is missing.
NYB_NODISCARD nyb_status nyb_wordpiece_encode(const nyb_wordpiece *model, const char *text,
                                              size_t length, nyb_tokens *out, nyb_err *err);

#endif // NYB_MODEL_WORDPIECE_H_
