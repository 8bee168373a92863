#include "model/wordpiece.h"

#include <string.h>

#include "model/unicode.h"

nyb_status nyb_wordpiece_finish(nyb_wordpiece *m, nyb_err *err)
{
    const nyb_vocabulary *const v = m->vocabulary;
    const size_t prefix = strlen(m->prefix);
    nyb_status status = nyb_byte_trie_init(&m->words, err);
    if (status == NYB_OK)
        status = nyb_byte_trie_init(&m->rest, err);
    for (size_t i = 0; i < v->count && status == NYB_OK; i++) {
        const nyb_token *const token = &v->tokens[i];
        status = nyb_byte_trie_put(&m->words, token->text, token->length, token->id, err);
        if (status == NYB_OK && token->length >= prefix &&
            memcmp(token->text, m->prefix, prefix) == 0)
            status = nyb_byte_trie_put(&m->rest, token->text + prefix, token->length - prefix,
                                       token->id, err);
    }
    return status;
}

void nyb_wordpiece_clear(nyb_wordpiece *m)
{
    nyb_byte_trie_clear(&m->words);
    nyb_byte_trie_clear(&m->rest);
}

// Bytes of the longest token that the text starts with, 0: none. Only whole characters count.
static size_t longest(const nyb_byte_trie *trie, const char *text, size_t length, uint32_t *id)
{
    size_t found = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        node = nyb_byte_trie_next(trie, node, (unsigned char) text[i]);
        if (node == 0)
            break;
        if (trie->values[node] != NYB_TRIE_NONE) {
            found = i + 1;
            *id = trie->values[node];
        }
    }
    return found;
}

static bool is_too_long(const nyb_wordpiece *m, const char *text, size_t length)
{
    size_t characters = 0;
    for (size_t at = 0; at < length && characters <= m->longest_word; characters++)
        (void) nyb_utf8_next(text, &at);
    return characters > m->longest_word;
}

static nyb_status add_unknown(const nyb_wordpiece *m, nyb_tokens *out, nyb_err *err)
{
    if (m->unknown < 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "the text has a word without tokens, and the vocabulary lacks the unknown "
                        "token that the tokenizer names");
    return nyb_tokens_add(out, (uint32_t) m->unknown, err);
}

nyb_status nyb_wordpiece_encode(const nyb_wordpiece *m, const char *text, size_t length,
                                nyb_tokens *out, nyb_err *err)
{
    const size_t before = out->count;
    if (length == 0)
        return NYB_OK;
    if (is_too_long(m, text, length))
        return add_unknown(m, out, err);
    for (size_t at = 0; at < length;) {
        uint32_t id = 0;
        const size_t taken = longest(at == 0 ? &m->words : &m->rest, text + at, length - at, &id);
        if (taken == 0) {
            out->count = before;
            return add_unknown(m, out, err);
        }
        const nyb_status status = nyb_tokens_add(out, id, err);
        if (status != NYB_OK)
            return status;
        at += taken;
    }
    return NYB_OK;
}
