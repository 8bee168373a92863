#include "model/bpe.h"

#include <string.h>

#include "model/unicode.h"

// No symbol has this id: ids are below NYB_TOKEN_ID_LIMIT.
#define NO_SYMBOL UINT32_MAX
#define NO_PAIR   UINT64_MAX
#define NO_NEXT   UINT32_MAX

enum {
    SHORT_WORD = 20,    // up to here looking at every pair beats a heap
    CACHED_LENGTH = 48, // longer pieces hardly come twice
    CACHE_SLOTS = 1 << 16,
    CACHE_ROOM = 3 << 14, // pieces remembered, three quarters of the slots
};

static uint64_t pair_of(uint32_t left, uint32_t right)
{
    return (uint64_t) left << 32 | right;
}

static size_t hash_pair(uint64_t pair)
{
    pair *= 0x9e3779b97f4a7c15u;
    return (size_t) (pair ^ pair >> 32);
}

// The rule for a pair, or NULL.
static const nyb_merge *find_merge(const nyb_bpe *bpe, uint32_t left, uint32_t right)
{
    size_t slot = hash_pair(pair_of(left, right)) & bpe->table_mask;
    while (bpe->table[slot].result != NO_SYMBOL) {
        const nyb_merge *const merge = &bpe->table[slot];
        if (merge->left == left && merge->right == right)
            return merge;
        slot = (slot + 1) & bpe->table_mask;
    }
    return NULL;
}

static bool may_join(const nyb_bpe *bpe, uint32_t left, uint32_t right)
{
    const uint64_t pair = pair_of(left, right);
    size_t slot = hash_pair(pair) & bpe->join_mask;
    while (bpe->may_join[slot] != NO_PAIR) {
        if (bpe->may_join[slot] == pair)
            return true;
        slot = (slot + 1) & bpe->join_mask;
    }
    return false;
}

static void add_join(nyb_bpe *bpe, uint32_t left, uint32_t right)
{
    const uint64_t pair = pair_of(left, right);
    size_t slot = hash_pair(pair) & bpe->join_mask;
    while (bpe->may_join[slot] != NO_PAIR && bpe->may_join[slot] != pair)
        slot = (slot + 1) & bpe->join_mask;
    bpe->may_join[slot] = pair;
}

static void find_bytes(nyb_bpe *bpe)
{
    static const char digits[] = "0123456789ABCDEF";
    char text[] = "<0x00>";
    for (size_t i = 0; i < 256; i++) {
        text[3] = digits[i >> 4];
        text[4] = digits[i & 15];
        bpe->byte_ids[i] = nyb_vocabulary_find(bpe->vocabulary, text, 6);
    }
}

// Whether some merge takes or gives a token that can also come about without one (a byte's or
// the unknown one). The edges of tokens then say too little about which symbols can meet.
static bool merges_raw_tokens(const nyb_bpe *bpe, nyb_err *err, nyb_status *status)
{
    bool *const raw = nyb_alloc(bpe->vocabulary->size, sizeof(*raw));
    if (!raw) {
        *status = nyb_no_memory(err, "the merges", bpe->vocabulary->size, sizeof(*raw));
        return true;
    }
    for (size_t i = 0; bpe->byte_fallback && i < 256; i++)
        if (bpe->byte_ids[i] >= 0)
            raw[bpe->byte_ids[i]] = true;
    if (bpe->unknown >= 0)
        raw[bpe->unknown] = true;

    bool found = false;
    for (size_t i = 0; i < bpe->merge_count; i++) {
        const nyb_merge *const merge = &bpe->merges[i];
        found = found || raw[merge->left] || raw[merge->right] || raw[merge->result];
    }
    nyb_free(raw);
    return found;
}

// The symbol of a token's first or last character, or -1.
static int64_t edge_symbol(const nyb_bpe *bpe, uint32_t id, bool last)
{
    const nyb_token *const token = nyb_vocabulary_at(bpe->vocabulary, id);
    if (!token || token->length == 0)
        return -1;
    const size_t at = last ? nyb_utf8_back(token->text, token->length) : 0;
    size_t end = at;
    (void) nyb_utf8_next(token->text, &end);
    return nyb_vocabulary_find(bpe->vocabulary, token->text + at, end - at);
}

static void add_join_of(nyb_bpe *bpe, const nyb_merge *merge)
{
    const int64_t left = edge_symbol(bpe, merge->left, true);
    const int64_t right = edge_symbol(bpe, merge->right, false);
    if (left >= 0 && right >= 0)
        add_join(bpe, (uint32_t) left, (uint32_t) right);
}

static void add_merge(nyb_bpe *bpe, nyb_merge merge)
{
    size_t slot = hash_pair(pair_of(merge.left, merge.right)) & bpe->table_mask;
    while (bpe->table[slot].result != NO_SYMBOL &&
           (bpe->table[slot].left != merge.left || bpe->table[slot].right != merge.right))
        slot = (slot + 1) & bpe->table_mask;
    bpe->table[slot] = merge;
}

nyb_status nyb_bpe_finish(nyb_bpe *bpe, nyb_arena *arena, nyb_err *err)
{
    size_t slots = 64;
    while (slots < 2 * bpe->merge_count)
        slots *= 2;
    bpe->table = nyb_arena_alloc(arena, slots, sizeof(*bpe->table));
    bpe->may_join = nyb_arena_alloc(arena, 4 * slots, sizeof(*bpe->may_join));
    if (!bpe->table || !bpe->may_join)
        return nyb_no_memory(err, "the merges", slots, sizeof(*bpe->table));
    bpe->table_mask = slots - 1;
    bpe->join_mask = 4 * slots - 1;
    for (size_t i = 0; i < slots; i++)
        bpe->table[i].result = NO_SYMBOL;
    for (size_t i = 0; i < 4 * slots; i++)
        bpe->may_join[i] = NO_PAIR;

    find_bytes(bpe);
    for (size_t i = 0; i < bpe->merge_count; i++)
        add_merge(bpe, bpe->merges[i]);

    // With a prefix or suffix a character's symbol depends on its place: no cutting then.
    nyb_status status = NYB_OK;
    bpe->can_cut =
        *bpe->prefix == '\0' && *bpe->suffix == '\0' && !merges_raw_tokens(bpe, err, &status);
    for (size_t i = 0; bpe->can_cut && i < bpe->merge_count; i++)
        add_join_of(bpe, &bpe->merges[i]);
    return status;
}

// A symbol of a long word: a node of a list in an array. A merged-away one has id NO_SYMBOL.
typedef struct symbol {
    uint32_t id, before, next; // NO_NEXT: none
} symbol;

typedef struct candidate {
    uint32_t rank, at, result;
} candidate;

typedef struct cached {
    uint64_t hash;
    size_t text, length; // in cache_text
    size_t ids, count;   // in cache_ids
} cached;

struct nyb_bpe_scratch {
    uint32_t *symbols; // of the piece, before merging
    size_t count, room;
    symbol *list;    // [list_room]
    candidate *heap; // [3 * list_room] a merge takes one candidate out and puts two in
    size_t list_room, heap_count;
    nyb_bytes symbol_text; // a character with its prefix or suffix
    nyb_bytes cache_text;
    nyb_tokens cache_ids;
    cached *cache; // [CACHE_SLOTS], length 0: free
    size_t cached_count;
};

nyb_status nyb_bpe_scratch_new(nyb_bpe_scratch **out, nyb_err *err)
{
    nyb_bpe_scratch *const s = nyb_alloc(1, sizeof(*s));
    *out = s;
    return s ? NYB_OK : nyb_no_memory(err, "encoding", 1, sizeof(*s));
}

void nyb_bpe_scratch_free(nyb_bpe_scratch *s)
{
    if (!s)
        return;
    nyb_free(s->symbols);
    nyb_free(s->list);
    nyb_free(s->heap);
    nyb_free(s->cache);
    nyb_bytes_clear(&s->symbol_text);
    nyb_bytes_clear(&s->cache_text);
    nyb_tokens_clear(&s->cache_ids);
    nyb_free(s);
}

static nyb_status make_room(nyb_bpe_scratch *s, size_t more, nyb_err *err)
{
    if (s->room - s->count >= more)
        return NYB_OK;
    const size_t room = 2 * (s->count + more) + 64;
    uint32_t *const symbols = nyb_alloc_raw(room, sizeof(*symbols));
    if (!symbols)
        return nyb_no_memory(err, "symbols", room, sizeof(*symbols));
    if (s->count > 0)
        memcpy(symbols, s->symbols, s->count * sizeof(*symbols));
    nyb_free(s->symbols);
    s->symbols = symbols;
    s->room = room;
    return NYB_OK;
}

// Unknown text that has been seen and not written yet.
typedef struct pending {
    bool is_set;
    bool is_missing; // there was some, and no token for it
} pending;

static void flush(const nyb_bpe *bpe, nyb_bpe_scratch *s, pending *unknown)
{
    if (unknown->is_set)
        s->symbols[s->count++] = (uint32_t) bpe->unknown;
    unknown->is_set = false;
}

static bool put_bytes(const nyb_bpe *bpe, nyb_bpe_scratch *s, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bpe->byte_ids[(unsigned char) text[i]] < 0)
            return false;
    for (size_t i = 0; i < length; i++)
        s->symbols[s->count++] = (uint32_t) bpe->byte_ids[(unsigned char) text[i]];
    return true;
}

// Bytes of a character do not write out unknown text before them: that is how the tokenizers
// library orders the two, and its ids are the norm.
static void put_symbol(const nyb_bpe *bpe, nyb_bpe_scratch *s, pending *unknown, const char *text,
                       size_t length)
{
    const int64_t id = nyb_vocabulary_find(bpe->vocabulary, text, length);
    if (id >= 0) {
        flush(bpe, s, unknown);
        s->symbols[s->count++] = (uint32_t) id;
        return;
    }
    if (bpe->byte_fallback && put_bytes(bpe, s, text, length))
        return;
    unknown->is_missing = bpe->unknown_missing;
    if (bpe->unknown < 0)
        return;
    if (!bpe->fuse_unknown)
        flush(bpe, s, unknown);
    unknown->is_set = true;
}

static nyb_status put_symbols(const nyb_bpe *bpe, nyb_bpe_scratch *s, const char *text,
                              size_t length, nyb_err *err)
{
    const size_t prefix = strlen(bpe->prefix), suffix = strlen(bpe->suffix);
    pending unknown = {0};
    s->count = 0;
    for (size_t at = 0; at < length;) {
        const size_t begin = at;
        (void) nyb_utf8_next(text, &at);
        nyb_status status = make_room(s, prefix + suffix + NYB_UTF8_MAX + 1, err);
        if (status != NYB_OK)
            return status;
        if (prefix == 0 && suffix == 0) {
            put_symbol(bpe, s, &unknown, text + begin, at - begin);
            continue;
        }
        nyb_bytes_reset(&s->symbol_text);
        nyb_bytes_add(&s->symbol_text, bpe->prefix, begin > 0 ? prefix : 0);
        nyb_bytes_add(&s->symbol_text, text + begin, at - begin);
        nyb_bytes_add(&s->symbol_text, bpe->suffix, at == length ? suffix : 0);
        status = nyb_bytes_status(&s->symbol_text, err);
        if (status != NYB_OK)
            return status;
        put_symbol(bpe, s, &unknown, s->symbol_text.at, s->symbol_text.count);
    }
    flush(bpe, s, &unknown);
    if (unknown.is_missing)
        return nyb_fail(err, NYB_E_FORMAT,
                        "the text has a character without a token, and the vocabulary lacks the "
                        "unknown token that the tokenizer names");
    return NYB_OK;
}

// Merges up to SHORT_WORD symbols in place and returns how many are left.
static size_t merge_short(const nyb_bpe *bpe, uint32_t *at, size_t count)
{
    const nyb_merge *rules[SHORT_WORD] = {0}; // of each symbol with the one behind it
    for (size_t i = 0; i + 1 < count; i++)
        rules[i] = find_merge(bpe, at[i], at[i + 1]);

    for (;;) {
        size_t best = count;
        for (size_t i = 0; i + 1 < count; i++)
            if (rules[i] && (best == count || rules[i]->rank < rules[best]->rank))
                best = i;
        if (best == count)
            return count;

        at[best] = rules[best]->result;
        for (size_t i = best + 1; i + 1 < count; i++) {
            at[i] = at[i + 1];
            rules[i] = rules[i + 1];
        }
        count--;
        rules[count - 1] = NULL;
        if (best > 0)
            rules[best - 1] = find_merge(bpe, at[best - 1], at[best]);
        if (best + 1 < count)
            rules[best] = find_merge(bpe, at[best], at[best + 1]);
    }
}

static bool goes_before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void sift_down(candidate *heap, size_t count, size_t at)
{
    const candidate moving = heap[at];
    for (size_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && goes_before(&heap[child + 1], &heap[child]))
            child++;
        if (!goes_before(&heap[child], &moving))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static candidate heap_take(nyb_bpe_scratch *s)
{
    const candidate first = s->heap[0];
    s->heap[0] = s->heap[--s->heap_count];
    if (s->heap_count > 1)
        sift_down(s->heap, s->heap_count, 0);
    return first;
}

static void heap_put(nyb_bpe_scratch *s, candidate added)
{
    size_t at = s->heap_count++;
    while (at > 0 && goes_before(&added, &s->heap[(at - 1) / 2])) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = added;
}

static nyb_status make_list(nyb_bpe_scratch *s, size_t count, nyb_err *err)
{
    if (count <= s->list_room)
        return NYB_OK;
    nyb_free(s->list);
    nyb_free(s->heap);
    s->list_room = 0;
    s->list = nyb_alloc_raw(count, sizeof(*s->list));
    s->heap = nyb_alloc_raw(count, 3 * sizeof(*s->heap));
    if (!s->list || !s->heap)
        return nyb_no_memory(err, "symbols", count, sizeof(*s->list) + 3 * sizeof(*s->heap));
    s->list_room = count;
    return NYB_OK;
}

static void propose(const nyb_bpe *bpe, nyb_bpe_scratch *s, uint32_t at)
{
    const nyb_merge *const rule = find_merge(bpe, s->list[at].id, s->list[s->list[at].next].id);
    if (rule)
        heap_put(s, (candidate){.rank = rule->rank, .at = at, .result = rule->result});
}

// Carries a candidate out unless one of its symbols has changed since it was proposed.
static void merge_at(const nyb_bpe *bpe, nyb_bpe_scratch *s, candidate c)
{
    symbol *const left = &s->list[c.at];
    if (left->id == NO_SYMBOL || left->next == NO_NEXT)
        return;
    symbol *const right = &s->list[left->next];
    const nyb_merge *const rule = find_merge(bpe, left->id, right->id);
    if (!rule || rule->result != c.result)
        return;

    left->id = c.result;
    left->next = right->next;
    right->id = NO_SYMBOL;
    if (left->next != NO_NEXT)
        s->list[left->next].before = c.at;
    if (left->before != NO_NEXT)
        propose(bpe, s, left->before);
    if (left->next != NO_NEXT)
        propose(bpe, s, c.at);
}

static nyb_status merge_long(const nyb_bpe *bpe, nyb_bpe_scratch *s, uint32_t *at, size_t *count,
                             nyb_err *err)
{
    const size_t n = *count;
    const nyb_status status = make_list(s, n, err);
    if (status != NYB_OK)
        return status;

    s->heap_count = 0;
    for (size_t i = 0; i < n; i++)
        s->list[i] = (symbol){.id = at[i],
                              .before = i > 0 ? (uint32_t) (i - 1) : NO_NEXT,
                              .next = i + 1 < n ? (uint32_t) (i + 1) : NO_NEXT};
    for (size_t i = 0; i + 1 < n; i++)
        propose(bpe, s, (uint32_t) i);
    while (s->heap_count > 0)
        merge_at(bpe, s, heap_take(s));

    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (s->list[i].id != NO_SYMBOL)
            at[kept++] = s->list[i].id;
    *count = kept;
    return NYB_OK;
}

// Merges the symbols of the piece, cut where no merge can ever join two neighbours: the result
// is that of the whole, and a text without words becomes many short problems.
static nyb_status merge_all(const nyb_bpe *bpe, nyb_bpe_scratch *s, nyb_err *err)
{
    size_t kept = 0;
    for (size_t begin = 0; begin < s->count;) {
        size_t end = begin + 1;
        while (end < s->count &&
               (!bpe->can_cut || may_join(bpe, s->symbols[end - 1], s->symbols[end])))
            end++;
        size_t count = end - begin;
        if (count > SHORT_WORD) {
            const nyb_status status = merge_long(bpe, s, s->symbols + begin, &count, err);
            if (status != NYB_OK)
                return status;
        } else {
            count = merge_short(bpe, s->symbols + begin, count);
        }
        memmove(s->symbols + kept, s->symbols + begin, count * sizeof(*s->symbols));
        kept += count;
        begin = end;
    }
    s->count = kept;
    return NYB_OK;
}

// The cache entry of the piece, or the free one where it belongs; NULL: not a piece to keep.
static cached *cache_slot(nyb_bpe_scratch *s, const char *text, size_t length)
{
    if (length > CACHED_LENGTH)
        return NULL;
    if (!s->cache)
        s->cache = nyb_alloc(CACHE_SLOTS, sizeof(*s->cache));
    if (!s->cache)
        return NULL; // slower, nothing worse

    const uint64_t hash = nyb_hash_bytes(text, length);
    size_t slot = hash % CACHE_SLOTS;
    while (s->cache[slot].length > 0) {
        cached *const entry = &s->cache[slot];
        if (entry->hash == hash && entry->length == length &&
            memcmp(s->cache_text.at + entry->text, text, length) == 0)
            return entry;
        slot = (slot + 1) % CACHE_SLOTS;
    }
    s->cache[slot].hash = hash;
    return &s->cache[slot];
}

static nyb_status remember(nyb_bpe_scratch *s, cached *entry, const char *text, size_t length,
                           nyb_err *err)
{
    if (!entry || s->cached_count == CACHE_ROOM)
        return NYB_OK;
    cached kept = {.hash = entry->hash,
                   .text = s->cache_text.count,
                   .length = length,
                   .ids = s->cache_ids.count,
                   .count = s->count};
    nyb_bytes_add(&s->cache_text, text, length);
    for (size_t i = 0; i < s->count; i++) {
        const nyb_status status = nyb_tokens_add(&s->cache_ids, s->symbols[i], err);
        if (status != NYB_OK)
            return status;
    }
    const nyb_status status = nyb_bytes_status(&s->cache_text, err);
    if (status != NYB_OK)
        return status;
    *entry = kept;
    s->cached_count++;
    return NYB_OK;
}

static nyb_status append(nyb_tokens *out, const uint32_t *ids, size_t count, nyb_err *err)
{
    for (size_t i = 0; i < count; i++) {
        const nyb_status status = nyb_tokens_add(out, ids[i], err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_bpe_encode(const nyb_bpe *bpe, nyb_bpe_scratch *s, const char *text, size_t length,
                          nyb_tokens *out, nyb_err *err)
{
    if (length == 0)
        return NYB_OK;
    if (length >= UINT32_MAX)
        return nyb_fail(err, NYB_E_ARG, "a piece of text is %zu bytes long, the limit is %u",
                        length, UINT32_MAX - 1);
    cached *const entry = cache_slot(s, text, length);
    if (entry && entry->length > 0)
        return append(out, s->cache_ids.at + entry->ids, entry->count, err);

    const int64_t whole =
        bpe->whole_first ? nyb_vocabulary_find(bpe->vocabulary, text, length) : -1;
    if (whole >= 0)
        return nyb_tokens_add(out, (uint32_t) whole, err);

    nyb_status status = put_symbols(bpe, s, text, length, err);
    if (status == NYB_OK)
        status = merge_all(bpe, s, err);
    if (status == NYB_OK)
        status = remember(s, entry, text, length, err);
    if (status == NYB_OK)
        status = append(out, s->symbols, s->count, err);
    return status;
}
