#include "model/added_tokens.h"

#include "model/unicode.h"

enum { PATTERN_LIMIT = 4096 }; // bytes of a token that is looked for

// A node for each prefix of a pattern; children are a list.
typedef struct trie_node {
    uint32_t child, next; // 0: none (node 0 is the root)
    uint32_t token;       // index + 1 of the token that ends here, 0: none
    unsigned char byte;
} trie_node;

struct nyb_trie {
    trie_node *nodes;
    size_t count, room;
    uint32_t first[256]; // the root's children
};

static void trie_free(nyb_trie *trie)
{
    if (trie)
        nyb_free(trie->nodes);
    nyb_free(trie);
}

static nyb_status trie_add_node(nyb_trie *trie, unsigned char byte, nyb_err *err)
{
    if (trie->count == trie->room) {
        const size_t room = trie->room ? 2 * trie->room : 256;
        trie_node *const nodes = nyb_alloc(room, sizeof(*nodes));
        if (!nodes || room > UINT32_MAX) {
            nyb_free(nodes);
            return nyb_no_memory(err, "added tokens", room, sizeof(*nodes));
        }
        if (trie->count > 0)
            memcpy(nodes, trie->nodes, trie->count * sizeof(*nodes));
        nyb_free(trie->nodes);
        trie->nodes = nodes;
        trie->room = room;
    }
    trie->nodes[trie->count++] = (trie_node){.byte = byte};
    return NYB_OK;
}

static uint32_t trie_child(const nyb_trie *trie, uint32_t node, unsigned char byte)
{
    if (node == 0)
        return trie->first[byte];
    uint32_t child = trie->nodes[node].child;
    while (child && trie->nodes[child].byte != byte)
        child = trie->nodes[child].next;
    return child;
}

static nyb_status trie_put(nyb_trie *trie, const char *text, size_t length, size_t token,
                           nyb_err *err)
{
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        const unsigned char byte = (unsigned char) text[i];
        uint32_t child = trie_child(trie, node, byte);
        if (!child) {
            child = (uint32_t) trie->count;
            const nyb_status status = trie_add_node(trie, byte, err);
            if (status != NYB_OK)
                return status;
            if (node == 0) {
                trie->first[byte] = child;
            } else {
                trie->nodes[child].next = trie->nodes[node].child;
                trie->nodes[node].child = child;
            }
        }
        node = child;
    }
    if (!trie->nodes[node].token)
        trie->nodes[node].token = (uint32_t) token + 1;
    return NYB_OK;
}

static nyb_status make_room(nyb_added_tokens *added, uint32_t id, nyb_err *err)
{
    if (added->count == added->room) {
        const size_t room = added->room ? 2 * added->room : 64;
        nyb_added_token *const at = nyb_alloc(room, sizeof(*at));
        if (!at)
            return nyb_no_memory(err, "added tokens", room, sizeof(*at));
        if (added->count > 0)
            memcpy(at, added->at, added->count * sizeof(*at));
        nyb_free(added->at);
        added->at = at;
        added->room = room;
    }
    if (id >= added->id_room) {
        const size_t room = 2 * (size_t) id + 64;
        uint32_t *const by_id = nyb_alloc(room, sizeof(*by_id));
        if (!by_id)
            return nyb_no_memory(err, "added tokens", room, sizeof(*by_id));
        if (added->id_room > 0)
            memcpy(by_id, added->by_id, added->id_room * sizeof(*by_id));
        nyb_free(added->by_id);
        added->by_id = by_id;
        added->id_room = room;
    }
    return NYB_OK;
}

nyb_status nyb_added_tokens_put(nyb_added_tokens *added, nyb_added_token token, nyb_err *err)
{
    const nyb_status status = make_room(added, token.id, err);
    if (status != NYB_OK)
        return status;
    if (added->by_id[token.id] == 0) {
        added->count++;
        added->by_id[token.id] = (uint32_t) added->count;
    }
    added->at[added->by_id[token.id] - 1] = token;
    return NYB_OK;
}

const nyb_added_token *nyb_added_tokens_at(const nyb_added_tokens *added, uint32_t id)
{
    if (id >= added->id_room || added->by_id[id] == 0)
        return NULL;
    return &added->at[added->by_id[id] - 1];
}

static nyb_status build_trie(const nyb_added_tokens *added, bool normalized, nyb_trie **out,
                             nyb_err *err)
{
    nyb_trie *const trie = nyb_alloc(1, sizeof(*trie));
    *out = trie;
    if (!trie)
        return nyb_no_memory(err, "added tokens", 1, sizeof(*trie));
    nyb_status status = trie_add_node(trie, 0, err);
    for (size_t i = 0; i < added->count && status == NYB_OK; i++) {
        const nyb_added_token *const token = &added->at[i];
        if (token->normalized != normalized || token->pattern_length == 0)
            continue;
        if (token->pattern_length > PATTERN_LIMIT)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "added token %u is %zu bytes long, the limit is %d", token->id,
                            token->pattern_length, PATTERN_LIMIT);
        status = trie_put(trie, token->pattern, token->pattern_length, i, err);
    }
    return status;
}

nyb_status nyb_added_tokens_finish(nyb_added_tokens *added, nyb_err *err)
{
    nyb_status status = build_trie(added, false, &added->raw, err);
    if (status == NYB_OK)
        status = build_trie(added, true, &added->normalized, err);
    return status;
}

void nyb_added_tokens_clear(nyb_added_tokens *added)
{
    trie_free(added->raw);
    trie_free(added->normalized);
    nyb_free(added->at);
    nyb_free(added->by_id);
    *added = (nyb_added_tokens){0};
}

void nyb_segments_clear(nyb_segments *segments)
{
    nyb_free(segments->at);
    *segments = (nyb_segments){0};
}

static nyb_status add_segment(nyb_segments *out, nyb_segment segment, nyb_err *err)
{
    if (out->count == out->room) {
        const size_t room = out->room ? 2 * out->room : 64;
        nyb_segment *const at = nyb_alloc_raw(room, sizeof(*at));
        if (!at)
            return nyb_no_memory(err, "text between added tokens", room, sizeof(*at));
        if (out->count > 0)
            memcpy(at, out->at, out->count * sizeof(*at));
        nyb_free(out->at);
        out->at = at;
        out->room = room;
    }
    out->at[out->count++] = segment;
    return NYB_OK;
}

// The longest token that starts at `at`, or NULL.
static const nyb_added_token *match_at(const nyb_added_tokens *added, const nyb_trie *trie,
                                       const char *text, size_t at, size_t length)
{
    const nyb_added_token *found = NULL;
    uint32_t node = 0;
    for (size_t i = at; i < length; i++) {
        node = trie_child(trie, node, (unsigned char) text[i]);
        if (!node)
            break;
        if (trie->nodes[node].token)
            found = &added->at[trie->nodes[node].token - 1];
    }
    return found;
}

static bool stands_alone(const char *text, size_t begin, size_t end, size_t length)
{
    if (begin > 0) {
        size_t at = nyb_utf8_back(text, begin);
        if (nyb_char_is_word(nyb_utf8_next(text, &at)))
            return false;
    }
    return end == length || !nyb_char_is_word(nyb_utf8_next(text, &end));
}

// The token with the white space it takes along; nothing before `from` is taken.
static nyb_segment widen(const nyb_added_token *token, const char *text, size_t begin, size_t from,
                         size_t length)
{
    size_t end = begin + token->pattern_length;
    while (token->lstrip && begin > from) {
        const size_t before = nyb_utf8_back(text, begin);
        size_t at = before;
        if (!nyb_char_is_space(nyb_utf8_next(text, &at)))
            break;
        begin = before;
    }
    while (token->rstrip && end < length) {
        size_t behind = end;
        if (!nyb_char_is_space(nyb_utf8_next(text, &behind)))
            break;
        end = behind;
    }
    return (nyb_segment){.begin = begin, .end = end, .token = token};
}

nyb_status nyb_added_tokens_cut(const nyb_added_tokens *added, bool normalized, const char *text,
                                size_t length, nyb_segments *out, nyb_err *err)
{
    const nyb_trie *const trie = normalized ? added->normalized : added->raw;
    nyb_status status = NYB_OK;
    size_t done = 0;
    for (size_t at = 0; at < length && status == NYB_OK;) {
        const nyb_added_token *const token =
            trie->first[(unsigned char) text[at]] ? match_at(added, trie, text, at, length) : NULL;
        if (!token) {
            at++;
            continue;
        }
        const size_t end = at + token->pattern_length;
        if (!token->single_word || stands_alone(text, at, end, length)) {
            const nyb_segment segment = widen(token, text, at, done, length);
            if (done < segment.begin)
                status = add_segment(out, (nyb_segment){.begin = done, .end = segment.begin}, err);
            if (status == NYB_OK)
                status = add_segment(out, segment, err);
            done = segment.end;
        }
        at = end; // white space taken along may start a token of its own
    }
    if (status == NYB_OK && done < length)
        status = add_segment(out, (nyb_segment){.begin = done, .end = length}, err);
    return status;
}
