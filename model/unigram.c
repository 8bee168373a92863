#include "model/unigram.h"

#include <math.h>
#include <string.h>

#include "model/unicode.h"

// The best way to reach a place of the text.
struct nyb_unigram_node {
    double score;
    size_t start; // where its last token begins; NOWHERE: not reached yet
    uint32_t id;
};

#define NOWHERE SIZE_MAX
#define UNKNOWN UINT32_MAX

nyb_status nyb_unigram_finish(nyb_unigram *m, nyb_err *err)
{
    static const char digits[] = "0123456789ABCDEF";
    char text[] = "<0x00>";
    nyb_status status = nyb_byte_trie_init(&m->trie, err);
    for (size_t i = 0; i < m->vocabulary->count && status == NYB_OK; i++) {
        const nyb_token *const token = &m->vocabulary->tokens[i];
        if (token->length > 0 && !isnan(m->scores[token->id]))
            status = nyb_byte_trie_put(&m->trie, token->text, token->length, token->id, err);
    }
    for (size_t i = 0; i < 256; i++) {
        text[3] = digits[i >> 4];
        text[4] = digits[i & 15];
        m->byte_ids[i] = nyb_vocabulary_find(m->vocabulary, text, 6);
    }
    return status;
}

void nyb_unigram_clear(nyb_unigram *m)
{
    nyb_byte_trie_clear(&m->trie);
}

void nyb_unigram_scratch_clear(nyb_unigram_scratch *s)
{
    nyb_free(s->nodes);
    nyb_free(s->path);
    nyb_free(s->starts);
    *s = (nyb_unigram_scratch){0};
}

// Room for a node behind each of `count` bytes; the old ones stay.
static nyb_status make_nodes(nyb_unigram_scratch *s, size_t count, nyb_err *err)
{
    if (count <= s->room)
        return NYB_OK;
    const size_t room = 2 * count + 64;
    nyb_unigram_node *const nodes = nyb_alloc_raw(room, sizeof(*nodes));
    if (!nodes)
        return nyb_no_memory(err, "ways to cut a text", room, sizeof(*nodes));
    if (s->room > 0)
        memcpy(nodes, s->nodes, s->room * sizeof(*nodes));
    nyb_free(s->nodes);
    s->nodes = nodes;
    s->room = room;
    return NYB_OK;
}

static nyb_status make_path(nyb_unigram_scratch *s, size_t count, nyb_err *err)
{
    if (count <= s->path_room)
        return NYB_OK;
    nyb_free(s->path);
    nyb_free(s->starts);
    s->path_room = 0;
    s->path = nyb_alloc_raw(count, sizeof(*s->path));
    s->starts = nyb_alloc_raw(count, sizeof(*s->starts));
    if (!s->path || !s->starts)
        return nyb_no_memory(err, "ways to cut a text", count, sizeof(*s->starts));
    s->path_room = count;
    return NYB_OK;
}

// One stretch of the text that no token leaves: bytes [begin, ...), reached up to `end`.
typedef struct stretch {
    const nyb_unigram *model;
    nyb_unigram_scratch *scratch;
    const char *text;
    size_t length, begin, end;
} stretch;

static nyb_status reach(stretch *s, size_t start, size_t end, double score, uint32_t id,
                        nyb_err *err)
{
    const nyb_status status = make_nodes(s->scratch, end - s->begin + 1, err);
    if (status != NYB_OK)
        return status;
    while (s->end < end)
        s->scratch->nodes[++s->end - s->begin].start = NOWHERE;
    nyb_unigram_node *const node = &s->scratch->nodes[end - s->begin];
    double total = s->scratch->nodes[start - s->begin].score + score;
    if (s->model->single)
        total = (double) (float) total;
    if (node->start != NOWHERE && !(total > node->score))
        return NYB_OK;
    if (id == UNKNOWN && s->model->unknown < 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "the text has a character without a token, and the tokenizer has no "
                        "unknown token");
    *node = (nyb_unigram_node){.score = total, .start = start, .id = id};
    return NYB_OK;
}

// All tokens that begin at `at`, and the unknown one where none has the length of the character.
static nyb_status extend(stretch *s, size_t at, nyb_err *err)
{
    const nyb_byte_trie *const trie = &s->model->trie;
    size_t behind = at;
    (void) nyb_utf8_next(s->text, &behind);
    bool single = false;
    uint32_t node = 0;
    nyb_status status = NYB_OK;
    for (size_t i = at; i < s->length && status == NYB_OK; i++) {
        node = nyb_byte_trie_next(trie, node, (unsigned char) s->text[i]);
        if (node == 0)
            break;
        const uint32_t id = trie->values[node];
        if (id == NYB_TRIE_NONE)
            continue;
        single = single || i + 1 == behind;
        status = reach(s, at, i + 1, s->model->scores[id], id, err);
    }
    if (status == NYB_OK && !single)
        status = reach(s, at, behind, s->model->unknown_score, UNKNOWN, err);
    return status;
}

static nyb_status add_unknown(const nyb_unigram *m, const char *text, size_t length,
                              nyb_tokens *out, nyb_err *err)
{
    bool bytes = m->byte_fallback;
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < length && bytes; i++)
        bytes = m->byte_ids[(unsigned char) text[i]] >= 0;
    if (!bytes)
        return nyb_tokens_add(out, (uint32_t) m->unknown, err);
    for (size_t i = 0; i < length && status == NYB_OK; i++)
        status = nyb_tokens_add(out, (uint32_t) m->byte_ids[(unsigned char) text[i]], err);
    return status;
}

// Ends the unknown text that began at *unknown (NOWHERE: none) and may span several stretches.
static nyb_status flush(const stretch *s, size_t *unknown, size_t end, nyb_tokens *out,
                        nyb_err *err)
{
    const size_t begin = *unknown;
    if (begin == NOWHERE)
        return NYB_OK;
    *unknown = NOWHERE;
    // Characters that are unknown one by one may be a token together: the tokenizers library
    // looks for it, the sentencepiece library does not.
    const int64_t id =
        s->model->single ? -1
                         : nyb_vocabulary_find(s->model->vocabulary, s->text + begin, end - begin);
    if (id >= 0)
        return nyb_tokens_add(out, (uint32_t) id, err);
    return add_unknown(s->model, s->text + begin, end - begin, out, err);
}

// Appends the best tokens of the stretch; neighbours without a token are one unknown text.
static nyb_status put_path(const stretch *s, size_t *unknown, nyb_tokens *out, nyb_err *err)
{
    nyb_unigram_scratch *const scratch = s->scratch;
    size_t count = 0;
    nyb_status status = make_path(scratch, s->end - s->begin, err);
    if (status != NYB_OK)
        return status;
    for (size_t at = s->end; at > s->begin; count++) {
        const nyb_unigram_node *const node = &scratch->nodes[at - s->begin];
        scratch->path[count] = node->id;
        scratch->starts[count] = at = node->start;
    }
    while (count-- > 0 && status == NYB_OK) {
        const uint32_t id = scratch->path[count];
        const bool is_unknown = id == UNKNOWN || (int64_t) id == s->model->unknown;
        if (is_unknown && *unknown == NOWHERE)
            *unknown = scratch->starts[count];
        if (is_unknown)
            continue;
        status = flush(s, unknown, scratch->starts[count], out, err);
        if (status == NYB_OK)
            status = nyb_tokens_add(out, id, err);
    }
    return status;
}

nyb_status nyb_unigram_encode(const nyb_unigram *m, nyb_unigram_scratch *scratch, const char *text,
                              size_t length, nyb_tokens *out, nyb_err *err)
{
    stretch s = {.model = m, .scratch = scratch, .text = text, .length = length};
    size_t unknown = NOWHERE;
    double score = 0.0; // carried on over the stretches, so that sums round as in one
    nyb_status status = NYB_OK;
    for (size_t at = 0; at < length && status == NYB_OK;) {
        s.begin = s.end = at;
        status = make_nodes(scratch, 1, err);
        if (status == NYB_OK)
            scratch->nodes[0] = (nyb_unigram_node){.score = score, .start = at};
        do {
            if (status == NYB_OK)
                status = extend(&s, at, err);
            (void) nyb_utf8_next(text, &at);
        } while (status == NYB_OK && at < s.end);
        if (status == NYB_OK)
            status = put_path(&s, &unknown, out, err);
        if (status == NYB_OK)
            score = scratch->nodes[s.end - s.begin].score;
    }
    return status == NYB_OK ? flush(&s, &unknown, length, out, err) : status;
}
