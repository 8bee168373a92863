// A SentencePiece BPE model as a tokenizer: its pieces are the vocabulary, and every way to put a
// piece together from two others is a merge.
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "core/file.h"
#include "model/spm_model.h"
#include "model/tokenizer_private.h"
#include "model/unicode.h"

static nyb_status add_pieces(nyb_tokenizer *t, const nyb_spm_model *m, const char *name,
                             nyb_err *err)
{
    nyb_status status = nyb_vocabulary_init(&t->vocabulary, &t->arena, m->count, err);
    if (status == NYB_OK)
        status = nyb_vocabulary_init(&t->extra, &t->arena, 0, err);
    for (size_t i = 0; i < m->count && status == NYB_OK; i++) {
        if (m->pieces[i].length > NYB_TOKEN_LENGTH_LIMIT)
            return nyb_fail(err, NYB_E_FORMAT, "%s: piece %zu is %zu bytes long, the limit is %d",
                            name, i, m->pieces[i].length, NYB_TOKEN_LENGTH_LIMIT);
        // The vocabulary's errors print the text, so it needs its NUL.
        const char *const text = nyb_arena_text(&t->arena, m->pieces[i].text, m->pieces[i].length);
        const nyb_token token = {
            .text = text, .length = (uint32_t) m->pieces[i].length, .id = (uint32_t) i};
        status = text ? nyb_vocabulary_add(&t->vocabulary, &t->arena, token, name, err)
                      : nyb_no_memory(err, "pieces", token.length, 1);
    }
    return status;
}

// How the merges of one model are found and ordered.
typedef struct merge_rules {
    const nyb_spm_model *model;
    const nyb_vocabulary *vocabulary;
    bool by_score; // only text pieces; equal scores are equal ranks
} merge_rules;

static bool may_merge(const merge_rules *r, int64_t id)
{
    if (id < 0)
        return false;
    const nyb_spm_type type = r->model->pieces[id].type;
    return !r->by_score || type == NYB_SPM_NORMAL || type == NYB_SPM_USER_DEFINED;
}

// Appends the ways to make piece `id`, shorter left halves first; `out` NULL: only counts them.
static size_t merges_of(const merge_rules *r, size_t id, nyb_merge *out)
{
    const nyb_spm_piece *const piece = &r->model->pieces[id];
    size_t count = 0, cut = 0;
    if (piece->length == 0 || !may_merge(r, (int64_t) id))
        return 0;
    (void) nyb_utf8_next(piece->text, &cut);
    while (cut < piece->length) {
        const int64_t left = nyb_vocabulary_find(r->vocabulary, piece->text, cut);
        const int64_t right =
            nyb_vocabulary_find(r->vocabulary, piece->text + cut, piece->length - cut);
        if (may_merge(r, left) && may_merge(r, right)) {
            if (out)
                out[count] = (nyb_merge){
                    .left = (uint32_t) left, .right = (uint32_t) right, .result = (uint32_t) id};
            count++;
        }
        (void) nyb_utf8_next(piece->text, &cut);
    }
    return count;
}

// A score as a number that grows as the score falls.
static uint32_t rank_of_score(float score)
{
    uint32_t bits = 0;
    score += 0.0f; // -0 is 0
    memcpy(&bits, &score, sizeof(bits));
    const uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    return ~rising;
}

// Texts of pieces can be long: their ways of being made are quadratic work in their length.
enum { LONGEST_MERGED = 1 << 12 };

static nyb_status make_merges(nyb_tokenizer *t, const nyb_spm_model *m, bool by_score,
                              const char *name, nyb_err *err)
{
    const merge_rules rules = {.model = m, .vocabulary = &t->vocabulary, .by_score = by_score};
    size_t count = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (m->pieces[i].length > LONGEST_MERGED)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: piece %zu is %zu bytes long, the limit is %d", name, i,
                            m->pieces[i].length, LONGEST_MERGED);
        count += merges_of(&rules, i, NULL);
    }
    nyb_merge *const merges = nyb_arena_alloc(&t->arena, count + 1, sizeof(*merges));
    if (!merges)
        return nyb_no_memory(err, "the merges", count, sizeof(*merges));

    size_t done = 0;
    for (size_t i = 0; i < m->count; i++) {
        const size_t more = merges_of(&rules, i, merges + done);
        for (size_t k = 0; k < more; k++) {
            merges[done + k].rank =
                by_score ? rank_of_score(m->pieces[i].score) : (uint32_t) (done + k);
        }
        done += more;
    }
    t->bpe.merges = merges;
    t->bpe.merge_count = done;
    return nyb_bpe_finish(&t->bpe, &t->arena, err);
}

static const double unknown_penalty = 10.0;

// Pieces for text by their scores. Symbols of the user's are cut out before.
static nyb_status make_unigram(nyb_tokenizer *t, const nyb_spm_model *m, nyb_err *err)
{
    double *const scores = nyb_arena_alloc(&t->arena, m->count, sizeof(*scores));
    float lowest = FLT_MAX;
    if (!scores)
        return nyb_no_memory(err, "scores", m->count, sizeof(*scores));
    for (size_t i = 0; i < m->count; i++) {
        if (m->pieces[i].type != NYB_SPM_NORMAL)
            continue;
        lowest = m->pieces[i].score < lowest ? m->pieces[i].score : lowest;
    }
    for (size_t i = 0; i < m->count; i++)
        scores[i] = m->pieces[i].type == NYB_SPM_NORMAL ? m->pieces[i].score : NAN;
    t->model = NYB_TOKEN_UNIGRAM;
    t->unigram = (nyb_unigram){.vocabulary = &t->vocabulary,
                               .scores = scores,
                               .unknown = t->unk,
                               .unknown_score = (double) (lowest - (float) unknown_penalty),
                               .byte_fallback = m->byte_fallback,
                               .single = true};
    return nyb_unigram_finish(&t->unigram, err);
}

static int64_t id_in(const nyb_spm_model *m, int64_t id)
{
    return id >= 0 && (size_t) id < m->count ? id : -1;
}

static nyb_status check_model(const nyb_spm_model *m, const char *name, nyb_err *err)
{
    static const char *const types[] = {"type 0", "unigram", "BPE", "word", "character"};
    if (m->model_type != 1 && m->model_type != 2)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: a SentencePiece model of kind '%s' is not supported", name,
                        m->model_type < 5 ? types[m->model_type] : "unknown");
    if (m->whitespace_as_suffix)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: treat_whitespace_as_suffix is not supported",
                        name);
    return NYB_OK;
}

// The charsmap in memory that outlives the file.
static nyb_status keep_charsmap(nyb_tokenizer *t, const nyb_spm_model *m, nyb_charsmap *out,
                                const char *name, nyb_err *err)
{
    const char *const copy =
        nyb_arena_text(&t->arena, m->charsmap.at ? m->charsmap.at : "", m->charsmap.length);
    if (!copy)
        return nyb_no_memory(err, "the character map", m->charsmap.length, 1);
    return nyb_charsmap_open(out, copy, m->charsmap.length, name, err);
}

static nyb_status add_symbols(nyb_tokenizer *t, const nyb_spm_model *m, bool control,
                              const char *name, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < m->count && status == NYB_OK; i++) {
        const nyb_spm_type type = m->pieces[i].type;
        if (type != NYB_SPM_USER_DEFINED && !(control && type == NYB_SPM_CONTROL))
            continue;
        const nyb_added_token token = {
            .text = m->pieces[i].text, .length = m->pieces[i].length, .special = control};
        status = nyb_tokenizer_add(t, token, name, err);
    }
    return status;
}

static nyb_status build_decoder(nyb_tokenizer *t, bool fallback, bool strip, nyb_err *err)
{
    static const char replace[] =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"}";
    static const char bytes[] = ",{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}";
    static const char first[] = ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}";
    nyb_err why = {0};
    json_t *value = NULL;
    const char *const text =
        nyb_arena_format(&t->arena, "{\"type\":\"Sequence\",\"decoders\":[%s%s%s]}", replace,
                         fallback ? bytes : "", strip ? first : "");
    if (!text)
        return nyb_no_memory(err, "a decoder", sizeof(replace), 3);
    value = json_loads(text, 0, NULL);
    if (!value)
        return nyb_no_memory(err, "a decoder", sizeof(replace), 3);
    const nyb_status status = nyb_decoder_load(&t->decoder, &t->arena, value, "decoder", &why);
    json_decref(value);
    return status == NYB_OK ? status : nyb_fail(err, status, "%s", why.text);
}

// As transformers builds it: from the pieces alone when no space comes in front, like a Llama
// tokenizer when one does.
static nyb_status build_transformers(nyb_tokenizer *t, const nyb_spm_model *m,
                                     nyb_prefix_scheme prefix, const char *name, nyb_err *err)
{
    const bool llama = prefix != NYB_PREFIX_NEVER;
    nyb_charsmap map = {0};
    t->bpe.byte_fallback = m->byte_fallback || llama;
    t->bpe.unknown =
        llama ? -1 : nyb_vocabulary_find(&t->vocabulary, m->unk_piece.at, m->unk_piece.length);
    nyb_status status = make_merges(t, m, false, name, err);
    if (status == NYB_OK && llama)
        status = nyb_pretokenizer_metaspace(&t->pretokenizer, &t->arena, prefix, err);
    if (status == NYB_OK && !llama)
        status = keep_charsmap(t, m, &map, name, err);
    if (status == NYB_OK && !llama)
        status = nyb_normalizer_spaces(&t->normalizer, &t->arena, map, err);
    if (status == NYB_OK)
        status = build_decoder(t, t->bpe.byte_fallback, llama, err);
    if (status == NYB_OK)
        status = add_symbols(t, m, true, name, err);
    return status;
}

static nyb_status build_native(nyb_tokenizer *t, const nyb_spm_model *m, const char *name,
                               nyb_err *err)
{
    nyb_charsmap map = {0};
    if (m->has_denormalizer)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: a denormalizer is not supported", name);
    for (size_t i = 0; i < m->count; i++)
        if (m->pieces[i].type == NYB_SPM_UNUSED)
            return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: unused pieces (%zu) are not supported",
                            name, i);

    const bool unigram = m->model_type == 1;
    t->bpe.byte_fallback = m->byte_fallback;
    t->bpe.unknown = t->unk;
    nyb_status status = unigram ? make_unigram(t, m, err) : make_merges(t, m, true, name, err);
    if (status == NYB_OK)
        status = keep_charsmap(t, m, &map, name, err);
    if (status == NYB_OK)
        status = add_symbols(t, m, false, name, err);
    for (size_t i = 0; i < t->added.count; i++)
        t->added.at[i].normalized = true; // looked for behind the normalizer, as they are
    if (status == NYB_OK)
        status = nyb_normalizer_spm(&t->normalizer, &t->arena, map, m->spaces, err);
    if (status == NYB_OK && t->bos >= 0)
        status = nyb_tokens_add(&t->post.before, (uint32_t) t->bos, err);
    if (status != NYB_OK)
        return status;

    t->decode_as_spm = true;
    t->spaces = m->spaces;
    t->unk_surface = nyb_arena_text(&t->arena, m->unk_surface.at, m->unk_surface.length);
    t->unk_surface_length = m->unk_surface.length;
    for (size_t i = 0; i < m->count && status == NYB_OK; i++) {
        if (m->pieces[i].type != NYB_SPM_CONTROL)
            continue;
        const nyb_token *const token = nyb_vocabulary_at(&t->vocabulary, (uint32_t) i);
        // With an empty pattern: marked as special, and never looked for.
        status = nyb_added_tokens_put(&t->added,
                                      (nyb_added_token){.text = token->text,
                                                        .length = token->length,
                                                        .id = (uint32_t) i,
                                                        .special = true,
                                                        .pattern = ""},
                                      err);
    }
    return t->unk_surface ? status : nyb_no_memory(err, "text", m->unk_surface.length, 1);
}

nyb_status nyb_tokenizer_build_spm(nyb_tokenizer *t, const nyb_spm_model *m, const char *path,
                                   nyb_spm_rules rules, nyb_prefix_scheme prefix, nyb_err *err)
{
    nyb_status status = check_model(m, path, err);
    if (status == NYB_OK)
        status = add_pieces(t, m, path, err);
    if (status != NYB_OK)
        return status;

    t->kind = m->model_type == 1 ? "SentencePiece unigram" : "SentencePiece BPE";
    t->unk = id_in(m, m->unk_id);
    t->bos = id_in(m, m->bos_id);
    t->eos = id_in(m, m->eos_id);
    t->pad = id_in(m, m->pad_id);
    t->bpe.vocabulary = &t->vocabulary;
    t->bpe.prefix = t->bpe.suffix = "";
    t->bpe.fuse_unknown = true;
    if (rules == NYB_SPM_RULES_SENTENCEPIECE || m->model_type == 1)
        return build_native(t, m, path, err);
    return build_transformers(t, m, prefix, path, err);
}

nyb_status nyb_tokenizer_load_spm(nyb_tokenizer *t, const char *path, nyb_spm_rules rules,
                                  nyb_prefix_scheme prefix, nyb_err *err)
{
    nyb_map file;
    nyb_status status = nyb_map_open(&file, path, err);
    if (status != NYB_OK)
        return status;
    nyb_spm_model m;
    status = nyb_spm_model_read(&m, &t->arena, file.at ? (const char *) file.at : "", file.bytes,
                                path, err);
    if (status == NYB_OK)
        status = nyb_tokenizer_build_spm(t, &m, path, rules, prefix, err);
    nyb_map_close(&file);
    return status;
}

// The byte of a byte piece, or -1.
static int piece_byte(const nyb_tokenizer *t, uint32_t id)
{
    const int64_t *const ids =
        t->model == NYB_TOKEN_UNIGRAM ? t->unigram.byte_ids : t->bpe.byte_ids;
    for (int i = 0; t->bpe.byte_fallback && i < 256; i++)
        if (ids[i] == (int64_t) id)
            return i;
    return -1;
}

// Bytes that are no character come out as U+FFFD each.
static void put_run(nyb_bytes *out, nyb_bytes *run)
{
    size_t at = 0;
    while (at < run->count) {
        const size_t valid = nyb_utf8_valid(run->at + at, run->count - at);
        nyb_bytes_add(out, run->at + at, valid);
        at += valid;
        if (at < run->count)
            nyb_bytes_add_char(out, NYB_CHAR_REPLACEMENT);
        at++;
    }
    nyb_bytes_reset(run);
}

static void put_piece(nyb_bytes *out, const char *text, size_t length)
{
    static const char symbol[] = "\xe2\x96\x81"; // ▁
    for (size_t at = 0; at < length;) {
        const bool space = length - at >= 3 && memcmp(text + at, symbol, 3) == 0;
        nyb_bytes_add(out, space ? " " : text + at, 1);
        at += space ? 3 : 1;
    }
}

nyb_status nyb_spm_decode(const nyb_tokenizer *t, const uint32_t *ids, size_t count, nyb_bytes *out,
                          nyb_err *err)
{
    const bool drops = t->spaces.add_dummy_prefix || t->spaces.remove_extra;
    bool at_start = true; // only control tokens, or spaces that were dropped, came before
    nyb_bytes run = {0};
    for (size_t i = 0; i < count; i++) {
        size_t length = 0;
        const char *text = nyb_tokenizer_text(t, ids[i], &length);
        const int byte = text ? piece_byte(t, ids[i]) : -1;
        const char c = (char) byte;
        if (byte >= 0) {
            nyb_bytes_add(&run, &c, 1);
            continue;
        }
        if (run.count > 0)
            at_start = false;
        put_run(out, &run);
        if (!text || nyb_tokenizer_is_special(t, ids[i]))
            continue;
        if ((int64_t) ids[i] == t->unk) {
            nyb_bytes_add(out, t->unk_surface, t->unk_surface_length);
            at_start = false;
            continue;
        }
        if (at_start && drops && length >= 3 && memcmp(text, "\xe2\x96\x81", 3) == 0) {
            text += 3;
            length -= 3;
            at_start = t->spaces.remove_extra && length == 0;
        } else {
            at_start = false;
        }
        put_piece(out, text, length);
    }
    put_run(out, &run);
    const nyb_status status = nyb_bytes_status(&run, err);
    nyb_bytes_clear(&run);
    return status;
}
