// The tokenizer inside a GGUF file: its arrays as the tokenizer.json or the SentencePiece model that
// they came from.
#include <string.h>

#include "core/json.h"
#include "formats/gguf.h"
#include "model/tokenizer_cuts.h"
#include "model/tokenizer_private.h"
#include "model/unicode.h"

enum { TYPE_CONTROL = 3, TYPE_USER = 4 };

// The file's arrays, all of the same length.
typedef struct source {
    const nyb_gguf *file;
    const nyb_gguf_value *tokens, *scores, *types;
    nyb_err *err;
} source;

static int type_of(const source *s, size_t id)
{
    return s->types ? (int) nyb_gguf_integer(s->types, id) : NYB_SPM_NORMAL;
}

static nyb_status find_array(const source *s, const char *key, bool text, size_t count,
                             const nyb_gguf_value **out)
{
    const nyb_gguf_value *const v = nyb_gguf_find(s->file, key);
    *out = v;
    if (v && (!v->is_array || (v->type == NYB_GGUF_TEXT) != text))
        return nyb_fail(s->err, NYB_E_FORMAT, "%s: '%s' is not an array of %s", s->file->path, key,
                        text ? "strings" : "numbers");
    if (v && count && v->count != count)
        return nyb_fail(s->err, NYB_E_FORMAT, "%s: '%s' has %zu entries for %zu tokens",
                        s->file->path, key, v->count, count);
    return NYB_OK;
}

static nyb_status find_arrays(source *s)
{
    nyb_status status = find_array(s, "tokenizer.ggml.tokens", true, 0, &s->tokens);
    if (status == NYB_OK && (!s->tokens || s->tokens->count == 0))
        return nyb_fail(s->err, NYB_E_FORMAT, "%s: holds no tokenizer (no 'tokenizer.ggml.tokens')",
                        s->file->path);
    if (status == NYB_OK && s->tokens->count > NYB_TOKEN_ID_LIMIT)
        return nyb_fail(s->err, NYB_E_FORMAT, "%s: %zu tokens are more than the limit of %d",
                        s->file->path, s->tokens->count, NYB_TOKEN_ID_LIMIT);
    if (status == NYB_OK)
        status = find_array(s, "tokenizer.ggml.scores", false, s->tokens->count, &s->scores);
    if (status == NYB_OK)
        status = find_array(s, "tokenizer.ggml.token_type", false, s->tokens->count, &s->types);
    return status;
}

static nyb_status find_id(const source *s, const char *key, int64_t *out)
{
    size_t id = SIZE_MAX;
    const nyb_status status = nyb_gguf_size(s->file, key, &id, s->err);
    *out = status == NYB_OK && id < s->tokens->count ? (int64_t) id : -1;
    return status;
}

static nyb_status find_ids(const source *s, nyb_tokenizer *t)
{
    nyb_status status = find_id(s, "tokenizer.ggml.bos_token_id", &t->bos);
    if (status == NYB_OK)
        status = find_id(s, "tokenizer.ggml.eos_token_id", &t->eos);
    if (status == NYB_OK)
        status = find_id(s, "tokenizer.ggml.unknown_token_id", &t->unk);
    if (status == NYB_OK)
        status = find_id(s, "tokenizer.ggml.padding_token_id", &t->pad);
    return status;
}

// Ids put around each text: `begins` where the file does not say.
static nyb_status find_ends(const source *s, nyb_tokenizer *t, bool begins)
{
    bool ends = false;
    nyb_status status = nyb_gguf_bool(s->file, "tokenizer.ggml.add_bos_token", &begins, s->err);
    if (status == NYB_OK)
        status = nyb_gguf_bool(s->file, "tokenizer.ggml.add_eos_token", &ends, s->err);
    if (status == NYB_OK && begins && t->bos >= 0)
        status = nyb_tokens_add(&t->post.before, (uint32_t) t->bos, s->err);
    if (status == NYB_OK && ends && t->eos >= 0)
        status = nyb_tokens_add(&t->post.after, (uint32_t) t->eos, s->err);
    return status;
}

// ---- Byte-level BPE -------------------------------------------------------------------------

static nyb_status make_vocabulary(const source *s, json_t *vocab, json_t *added)
{
    for (size_t i = 0; i < s->tokens->count; i++) {
        const nyb_gguf_text text = s->tokens->texts[i];
        const int type = type_of(s, i);
        const json_t *const old = json_object_getn(vocab, text.at, text.length);
        if (old || memchr(text.at, 0, text.length) ||
            json_object_setn_new(vocab, text.at, text.length, json_integer((json_int_t) i)) != 0)
            return nyb_fail(s->err, NYB_E_FORMAT, "%s: token %zu is %s", s->file->path, i,
                            old ? "there twice" : "not UTF-8 text");
        if (type == TYPE_CONTROL || type == TYPE_USER)
            json_array_append_new(added, json_pack("{s:I, s:s%, s:b, s:b}", "id", (json_int_t) i,
                                                   "content", text.at, text.length, "special",
                                                   type == TYPE_CONTROL, "normalized", 0));
    }
    return NYB_OK;
}

static nyb_status make_merges(const source *s, json_t *merges)
{
    const nyb_gguf_value *v = NULL;
    const nyb_status status = find_array(s, "tokenizer.ggml.merges", true, 0, &v);
    if (status != NYB_OK)
        return status;
    if (!v)
        return nyb_fail(s->err, NYB_E_FORMAT, "%s: has no 'tokenizer.ggml.merges'", s->file->path);
    for (size_t i = 0; i < v->count; i++) {
        if (json_array_append_new(merges, json_stringn(v->texts[i].at, v->texts[i].length)) != 0)
            return nyb_fail(s->err, NYB_E_FORMAT, "%s: merge %zu is not UTF-8", s->file->path, i);
    }
    return NYB_OK;
}

static nyb_status find_cut(const source *s, const nyb_tokenizer_cut **out)
{
    nyb_gguf_text name = {"", 0};
    const nyb_status status = nyb_gguf_string(s->file, "tokenizer.ggml.pre", &name, s->err);
    *out = nyb_tokenizer_cut_named(name.at, name.length);
    if (status != NYB_OK || *out)
        return status;
    return nyb_fail(s->err, NYB_E_UNSUPPORTED,
                    "%s: 'tokenizer.ggml.pre' is '%.*s', nybble help tokenizers lists those that "
                    "are supported",
                    s->file->path, (int) (name.length < 60 ? name.length : 60), name.at);
}

nyb_status nyb_gguf_bpe_document(json_t **out, const nyb_gguf *file, nyb_err *err)
{
    source s = {.file = file, .err = err};
    const nyb_tokenizer_cut *cut = NULL;
    nyb_gguf_text kind = {"", 0};
    *out = NULL;
    nyb_status status = find_arrays(&s);
    if (status == NYB_OK)
        status = nyb_gguf_string(file, "tokenizer.ggml.model", &kind, err);
    if (status == NYB_OK && (kind.length != 4 || memcmp(kind.at, "gpt2", 4) != 0))
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "%s: a tokenizer of kind '%.*s' is not supported, 'gpt2' and 'llama' are",
                          file->path, (int) (kind.length < 40 ? kind.length : 40), kind.at);
    if (status == NYB_OK)
        status = find_cut(&s, &cut);
    if (status != NYB_OK)
        return status;
    json_t *const vocab = json_object(), *const merges = json_array(), *const added = json_array();
    status = vocab && merges && added ? make_vocabulary(&s, vocab, added)
                                      : nyb_no_memory(err, "a tokenizer", 1, 1);
    if (status == NYB_OK)
        status = make_merges(&s, merges);
    json_t *const doc = json_pack(
        "{s:{s:s, s:b, s:o, s:o}, s:o, s:o?, s:o?, s:{s:s}}", "model", "type", "BPE",
        "ignore_merges", cut->whole_first, "vocab", vocab, "merges", merges, "added_tokens", added,
        "pre_tokenizer", json_loads(cut->pre_tokenizer, 0, NULL), "normalizer",
        json_loads(cut->normalizer, JSON_DECODE_ANY, NULL), "decoder", "type", "ByteLevel");
    if (status == NYB_OK && !doc)
        status = nyb_no_memory(err, "a tokenizer", s.tokens->count, 1);
    if (status == NYB_OK)
        *out = doc;
    else
        json_decref(doc);
    return status;
}

static nyb_status load_bpe(const source *s, nyb_tokenizer *t)
{
    json_t *doc = NULL;
    nyb_status status = nyb_gguf_bpe_document(&doc, s->file, s->err);
    if (status == NYB_OK)
        status = nyb_tokenizer_load_document(t, doc, s->file->path, s->err);
    json_decref(doc);
    if (status == NYB_OK)
        status = find_ids(s, t);
    return status == NYB_OK ? find_ends(s, t, false) : status;
}

// ---- SentencePiece --------------------------------------------------------------------------

nyb_status nyb_gguf_spm_model(nyb_spm_model *out, const nyb_gguf *file, nyb_arena *arena,
                              nyb_err *err)
{
    source s = {.file = file, .err = err};
    bool prefix = true;
    *out = (nyb_spm_model){.model_type = 2, .byte_fallback = true};
    nyb_status status = find_arrays(&s);
    if (status == NYB_OK)
        status = nyb_gguf_bool(file, "tokenizer.ggml.add_space_prefix", &prefix, err);
    if (status == NYB_OK)
        status = find_id(&s, "tokenizer.ggml.bos_token_id", &out->bos_id);
    if (status == NYB_OK)
        status = find_id(&s, "tokenizer.ggml.eos_token_id", &out->eos_id);
    if (status == NYB_OK)
        status = find_id(&s, "tokenizer.ggml.unknown_token_id", &out->unk_id);
    if (status == NYB_OK)
        status = find_id(&s, "tokenizer.ggml.padding_token_id", &out->pad_id);
    if (status != NYB_OK)
        return status;
    out->spaces.add_dummy_prefix = prefix;
    out->count = s.tokens->count;
    out->pieces = nyb_arena_alloc(arena, out->count, sizeof(*out->pieces));
    if (!out->pieces)
        return nyb_no_memory(err, "pieces", out->count, sizeof(*out->pieces));
    for (size_t i = 0; i < out->count; i++) {
        const nyb_gguf_text text = s.tokens->texts[i];
        const int type = type_of(&s, i);
        if (nyb_utf8_valid(text.at, text.length) < text.length || type < NYB_SPM_NORMAL ||
            type > NYB_SPM_BYTE)
            return nyb_fail(err, NYB_E_FORMAT, "%s: token %zu is not UTF-8, or of type %d",
                            file->path, i, type);
        out->pieces[i] = (nyb_spm_piece){
            .text = text.at,
            .length = text.length,
            .type = (nyb_spm_type) type,
            .score = s.scores ? (float) nyb_gguf_number(s.scores, i) : 0.0f,
        };
    }
    if (out->unk_id >= 0)
        out->unk_piece =
            (nyb_spm_text){out->pieces[out->unk_id].text, out->pieces[out->unk_id].length};
    return NYB_OK;
}

static nyb_status load_spm(const source *s, nyb_tokenizer *t)
{
    nyb_spm_model m;
    nyb_status status = nyb_gguf_spm_model(&m, s->file, &t->arena, s->err);
    if (status == NYB_OK)
        status = find_ids(s, t);
    if (status == NYB_OK)
        status = nyb_tokenizer_build_spm(
            t, &m, s->file->path, NYB_SPM_RULES_TRANSFORMERS,
            m.spaces.add_dummy_prefix ? NYB_PREFIX_FIRST : NYB_PREFIX_NEVER, s->err);
    return status == NYB_OK ? find_ends(s, t, true) : status;
}

// ---- Both -----------------------------------------------------------------------------------

static nyb_status load(source *s, nyb_tokenizer *t)
{
    nyb_gguf_text kind = {"", 0};
    nyb_status status = find_arrays(s);
    if (status == NYB_OK)
        status = nyb_gguf_string(s->file, "tokenizer.ggml.model", &kind, s->err);
    if (status != NYB_OK)
        return status;
    return kind.length == 5 && memcmp(kind.at, "llama", 5) == 0 ? load_spm(s, t) : load_bpe(s, t);
}

nyb_status nyb_tokenizer_load_gguf(nyb_tokenizer *t, const char *path, nyb_err *err)
{
    nyb_gguf file;
    nyb_status status = nyb_gguf_open(&file, path, err);
    if (status != NYB_OK)
        return status;
    source s = {.file = &file, .err = err};
    status = load(&s, t);
    nyb_gguf_close(&file);
    return status == NYB_OK ? nyb_added_tokens_finish(&t->added, err) : status;
}
