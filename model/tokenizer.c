#include "model/tokenizer_private.h"

#include "core/file.h"
#include "formats/gguf.h"
#include "model/unicode.h"

enum { TEXT_LIMIT = 1 << 30 };

// Files of the tokenizers of a folder, the first ones that are there count. A second one goes with
// the first.
typedef enum folder_kind { FOLDER_JSON, FOLDER_SPM, FOLDER_MERGES, FOLDER_LINES } folder_kind;

static const struct {
    const char *file, *second;
    folder_kind kind;
} folder_kinds[] = {
    {"tokenizer.json", NULL, FOLDER_JSON},
    {"tokenizer.model", NULL, FOLDER_SPM},
    {"vocab.json", "merges.txt", FOLDER_MERGES},
    {"encoder.json", "vocab.bpe", FOLDER_MERGES}, // as GPT-2 was first published
    {"vocab.txt", NULL, FOLDER_LINES},
};
enum { FOLDER_KINDS = sizeof(folder_kinds) / sizeof(folder_kinds[0]) };

static nyb_status load(nyb_tokenizer *t, const char *folder, const nyb_tokenizer_config *config,
                       nyb_spm_rules rules, nyb_err *err)
{
    const char *path = NULL, *second = NULL;
    size_t i = 0;
    for (; i < FOLDER_KINDS; i++) {
        path = nyb_path_join(&t->arena, folder, folder_kinds[i].file);
        second =
            nyb_path_join(&t->arena, folder, folder_kinds[i].second ? folder_kinds[i].second : "");
        if (!path || !second)
            return nyb_no_memory(err, folder, strlen(folder), 2);
        if (nyb_path_exists(path) && nyb_path_exists(second))
            break;
    }
    if (i == FOLDER_KINDS)
        return nyb_fail(err, NYB_E_IO,
                        "%s: holds no tokenizer: neither tokenizer.json nor tokenizer.model, "
                        "vocab.json with merges.txt, or vocab.txt",
                        folder);

    bool with_ends = false, configured = true;
    nyb_status status = NYB_OK;
    switch (folder_kinds[i].kind) {
    case FOLDER_JSON:
        status = nyb_tokenizer_load_json(t, path, err);
        break;
    case FOLDER_SPM:
        status = nyb_tokenizer_load_spm(t, path, rules, nyb_tokenizer_config_prefix(config), err);
        with_ends = configured = !t->decode_as_spm;
        break;
    case FOLDER_MERGES:
        status = nyb_tokenizer_load_merges(t, config, path, second, &with_ends, err);
        break;
    case FOLDER_LINES:
        status = nyb_tokenizer_load_lines(t, config, path, err);
        break;
    }
    if (status == NYB_OK && configured)
        status = nyb_tokenizer_config_apply(config, t, with_ends, err);
    return status == NYB_OK ? nyb_added_tokens_finish(&t->added, err) : status;
}

nyb_status nyb_tokenizer_open(nyb_tokenizer **out, const char *folder,
                              const nyb_tokenizer_params *params, nyb_err *err)
{
    const nyb_tokenizer_params used = params ? *params : NYB_TOKENIZER_DEFAULTS;
    nyb_tokenizer_config config = {0};
    nyb_tokenizer *const t = nyb_alloc(1, sizeof(*t));
    *out = NULL;
    if (!t)
        return nyb_no_memory(err, "a tokenizer", 1, sizeof(*t));

    t->bos = t->eos = t->unk = t->pad = -1;
    const bool is_file = nyb_gguf_named(folder);
    nyb_status status = is_file ? nyb_tokenizer_load_gguf(t, folder, err)
                                : nyb_tokenizer_config_open(&config, folder, err);
    if (status == NYB_OK && !is_file)
        status = load(t, folder, &config, used.spm_rules, err);
    nyb_tokenizer_config_close(&config);
    if (status == NYB_OK)
        *out = t;
    else
        nyb_tokenizer_close(t);
    return status;
}

void nyb_tokenizer_close(nyb_tokenizer *t)
{
    if (!t)
        return;
    nyb_normalizer_clear(t->normalizer);
    nyb_pretokenizer_clear(t->pretokenizer);
    nyb_decoder_clear(t->decoder);
    nyb_postprocessor_clear(&t->post);
    nyb_added_tokens_clear(&t->added);
    nyb_unigram_clear(&t->unigram);
    nyb_wordpiece_clear(&t->wordpiece);
    nyb_arena_clear(&t->arena);
    nyb_free(t);
}

// Working memory of one encoding.
typedef struct encoding {
    const nyb_tokenizer *t;
    nyb_tokens *out;
    nyb_segments raw, normalized;
    nyb_bytes text, spare; // a segment's text while it is normalized
    nyb_pieces pieces;
    nyb_bpe_scratch *bpe;
    nyb_unigram_scratch unigram;
} encoding;

static void encoding_clear(encoding *e)
{
    nyb_segments_clear(&e->raw);
    nyb_segments_clear(&e->normalized);
    nyb_bytes_clear(&e->text);
    nyb_bytes_clear(&e->spare);
    nyb_pieces_clear(&e->pieces);
    nyb_bpe_scratch_free(e->bpe);
    nyb_unigram_scratch_clear(&e->unigram);
}

static nyb_status encode_piece(encoding *e, const char *text, size_t length, nyb_err *err)
{
    const nyb_tokenizer *const t = e->t;
    switch (t->model) {
    case NYB_TOKEN_UNIGRAM:
        return nyb_unigram_encode(&t->unigram, &e->unigram, text, length, e->out, err);
    case NYB_TOKEN_WORDPIECE:
        return nyb_wordpiece_encode(&t->wordpiece, text, length, e->out, err);
    case NYB_TOKEN_BPE:
        break;
    }
    return nyb_bpe_encode(&t->bpe, e->bpe, text, length, e->out, err);
}

static nyb_status encode_normalized(encoding *e, const char *text, size_t length, bool at_start,
                                    nyb_err *err)
{
    nyb_pieces *const p = &e->pieces;
    p->now.count = 0;
    nyb_bytes_reset(&p->text);
    nyb_bytes_add(&p->text, text, length);
    nyb_ranges_add(&p->now, 0, length, at_start);
    nyb_status status = nyb_bytes_status(&p->text, err);
    if (status == NYB_OK)
        status = nyb_ranges_status(&p->now, err);
    if (status == NYB_OK)
        status = nyb_pretokenizer_run(e->t->pretokenizer, p, err);
    for (size_t i = 0; i < p->now.count && status == NYB_OK; i++) {
        const nyb_range piece = p->now.at[i];
        status = encode_piece(e, p->text.at + piece.begin, piece.end - piece.begin, err);
    }
    return status;
}

// A stretch of the input between added tokens.
static nyb_status encode_text(encoding *e, const char *text, size_t length, bool at_start,
                              nyb_err *err)
{
    nyb_bytes_reset(&e->text);
    nyb_bytes_add(&e->text, text, length);
    nyb_status status = nyb_bytes_status(&e->text, err);
    if (status == NYB_OK)
        status = nyb_normalizer_run(e->t->normalizer, &e->text, &e->spare, &e->pieces, err);
    if (status != NYB_OK)
        return status;

    e->normalized.count = 0;
    status =
        nyb_added_tokens_cut(&e->t->added, true, e->text.at, e->text.count, &e->normalized, err);
    for (size_t i = 0; i < e->normalized.count && status == NYB_OK; i++) {
        const nyb_segment s = e->normalized.at[i];
        if (s.token)
            status = nyb_tokens_add(e->out, s.token->id, err);
        else
            status = encode_normalized(e, e->text.at + s.begin, s.end - s.begin,
                                       at_start && s.begin == 0, err);
    }
    return status;
}

static nyb_status encode(encoding *e, const char *text, size_t length, nyb_err *err)
{
    nyb_status status = nyb_bpe_scratch_new(&e->bpe, err);
    if (status == NYB_OK)
        status = nyb_added_tokens_cut(&e->t->added, false, text, length, &e->raw, err);
    for (size_t i = 0; i < e->raw.count && status == NYB_OK; i++) {
        const nyb_segment s = e->raw.at[i];
        if (s.token)
            status = nyb_tokens_add(e->out, s.token->id, err);
        else
            status = encode_text(e, text + s.begin, s.end - s.begin, s.begin == 0, err);
    }
    return status;
}

static nyb_status append(nyb_tokens *out, const nyb_tokens *ids, bool wanted, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; wanted && i < ids->count && status == NYB_OK; i++)
        status = nyb_tokens_add(out, ids->at[i], err);
    return status;
}

nyb_status nyb_tokenizer_encode(const nyb_tokenizer *t, const char *text, size_t length,
                                bool add_special, nyb_tokens *out, nyb_err *err)
{
    if (length > TEXT_LIMIT)
        return nyb_fail(err, NYB_E_ARG,
                        "a text of %zu bytes is longer than the limit of %d: give it in parts",
                        length, TEXT_LIMIT);
    const size_t valid = nyb_utf8_valid(text, length);
    if (valid < length)
        return nyb_fail(err, NYB_E_FORMAT, "the text is not UTF-8: byte 0x%02x at offset %zu",
                        (unsigned char) text[valid], valid);

    encoding e = {.t = t, .out = out};
    const size_t before = out->count;
    nyb_status status = append(out, &t->post.before, add_special, err);
    if (status == NYB_OK)
        status = encode(&e, text, length, err);
    if (status == NYB_OK)
        status = append(out, &t->post.after, add_special, err);
    encoding_clear(&e);
    if (status != NYB_OK)
        out->count = before;
    return status;
}

// The text that a token is decoded from; NULL: no such token.
static const char *decoded_text(const nyb_tokenizer *t, uint32_t id, size_t *length)
{
    const nyb_added_token *const added = nyb_added_tokens_at(&t->added, id);
    if (added) {
        *length = added->pattern_length;
        return added->pattern;
    }
    return nyb_tokenizer_text(t, id, length);
}

// Whether skip_special leaves the token out. One whose text normalization changes is kept: it is
// the changed text that the tokenizers library compares.
static bool is_skipped(const nyb_tokenizer *t, uint32_t id)
{
    const nyb_added_token *const added = nyb_added_tokens_at(&t->added, id);
    return added && added->special && added->length == added->pattern_length &&
           memcmp(added->text, added->pattern, added->length) == 0;
}

static nyb_status decode(const nyb_tokenizer *t, nyb_pieces *p, const uint32_t *ids, size_t count,
                         bool skip_special, nyb_err *err)
{
    for (size_t i = 0; i < count; i++) {
        size_t length = 0;
        const char *const text = decoded_text(t, ids[i], &length);
        if (!text || (skip_special && is_skipped(t, ids[i])))
            continue;
        if (!t->decoder && p->now.count > 0)
            nyb_bytes_add(&p->text, " ", 1);
        const size_t begin = p->text.count;
        nyb_bytes_add(&p->text, text, length);
        nyb_ranges_add(&p->now, begin, p->text.count, false);
    }
    nyb_status status = nyb_bytes_status(&p->text, err);
    if (status == NYB_OK)
        status = nyb_ranges_status(&p->now, err);
    if (status == NYB_OK)
        status = nyb_decoder_run(t->decoder, p, err);
    return status; // the pieces lie one behind the other: p->text is their concatenation
}

nyb_status nyb_tokenizer_decode(const nyb_tokenizer *t, const uint32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *length, nyb_err *err)
{
    nyb_pieces p = {0};
    *text = NULL;
    *length = 0;
    nyb_status status = t->decode_as_spm ? nyb_spm_decode(t, ids, count, &p.text, err)
                                         : decode(t, &p, ids, count, skip_special, err);
    if (status == NYB_OK) {
        nyb_bytes_add(&p.text, "", 1); // the NUL
        status = nyb_bytes_status(&p.text, err);
    }
    if (status == NYB_OK) {
        *text = p.text.at;
        *length = p.text.count - 1;
        p.text = (nyb_bytes){0};
    }
    nyb_pieces_clear(&p);
    return status;
}

size_t nyb_tokenizer_size(const nyb_tokenizer *t)
{
    return t->vocabulary.size > t->extra.size ? t->vocabulary.size : t->extra.size;
}

int64_t nyb_tokenizer_bos(const nyb_tokenizer *t)
{
    return t->bos;
}

int64_t nyb_tokenizer_eos(const nyb_tokenizer *t)
{
    return t->eos;
}

int64_t nyb_tokenizer_unk(const nyb_tokenizer *t)
{
    return t->unk;
}

int64_t nyb_tokenizer_pad(const nyb_tokenizer *t)
{
    return t->pad;
}

const char *nyb_tokenizer_text(const nyb_tokenizer *t, uint32_t id, size_t *length)
{
    const nyb_token *token = nyb_vocabulary_at(&t->vocabulary, id);
    if (!token)
        token = nyb_vocabulary_at(&t->extra, id);
    if (length)
        *length = token ? token->length : 0;
    return token ? token->text : NULL;
}

int64_t nyb_tokenizer_find(const nyb_tokenizer *t, const char *text, size_t length)
{
    const int64_t id = nyb_vocabulary_find(&t->vocabulary, text, length);
    return id >= 0 ? id : nyb_vocabulary_find(&t->extra, text, length);
}

bool nyb_tokenizer_is_special(const nyb_tokenizer *t, uint32_t id)
{
    const nyb_added_token *const added = nyb_added_tokens_at(&t->added, id);
    return added && added->special;
}

const char *nyb_tokenizer_kind(const nyb_tokenizer *t)
{
    return t->kind;
}

// The id that the tokenizers library gives a new token: behind the model's and the added ones.
static size_t next_id(const nyb_tokenizer *t)
{
    size_t next = t->vocabulary.count;
    for (size_t i = 0; i < t->added.count; i++)
        if (t->added.at[i].id >= next)
            next = (size_t) t->added.at[i].id + 1;
    return next;
}

static nyb_status normalized_pattern(nyb_tokenizer *t, nyb_added_token *token, nyb_err *err)
{
    nyb_bytes text = {0}, spare = {0};
    nyb_pieces pieces = {0};
    nyb_bytes_add(&text, token->text, token->length);
    nyb_status status = nyb_bytes_status(&text, err);
    if (status == NYB_OK)
        status = nyb_normalizer_run(t->normalizer, &text, &spare, &pieces, err);
    if (status == NYB_OK) {
        token->pattern = nyb_arena_text(&t->arena, text.count > 0 ? text.at : "", text.count);
        token->pattern_length = text.count;
        if (!token->pattern)
            status = nyb_no_memory(err, "an added token", text.count, 1);
    }
    nyb_bytes_clear(&text);
    nyb_bytes_clear(&spare);
    nyb_pieces_clear(&pieces);
    return status;
}

nyb_status nyb_tokenizer_add(nyb_tokenizer *t, nyb_added_token token, const char *name,
                             nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (token.length == 0)
        return NYB_OK;
    int64_t id = nyb_tokenizer_find(t, token.text, token.length);
    if (id < 0) {
        id = (int64_t) next_id(t);
        const nyb_token extra = {
            .text = token.text, .length = (uint32_t) token.length, .id = (uint32_t) id};
        status = nyb_vocabulary_add(&t->extra, &t->arena, extra, name, err);
    }
    if (status != NYB_OK)
        return status;

    token.id = (uint32_t) id;
    token.text = nyb_arena_text(&t->arena, token.text, token.length);
    if (!token.text)
        return nyb_no_memory(err, "an added token", token.length, 1);
    token.pattern = token.text;
    token.pattern_length = token.length;
    if (token.normalized && t->normalizer)
        status = normalized_pattern(t, &token, err);
    return status == NYB_OK ? nyb_added_tokens_put(&t->added, token, err) : status;
}
