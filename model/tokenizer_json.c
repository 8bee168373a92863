#include "model/tokenizer_private.h"

#include "core/json.h"
#include "model/parts.h"
#include "model/tokenizer_kinds.h"

nyb_status nyb_tokenizer_read_vocabulary(nyb_tokenizer *t, const json_t *model, const char *name,
                                         nyb_err *err)
{
    json_t *const vocab = json_object_get(model, "vocab");
    const char *text = NULL;
    json_t *id = NULL;
    if (!json_is_object(vocab))
        return nyb_fail(err, NYB_E_FORMAT, "%s: the model has no object 'vocab'", name);
    nyb_status status =
        nyb_vocabulary_init(&t->vocabulary, &t->arena, json_object_size(vocab), err);
    if (status != NYB_OK)
        return status;

    json_object_foreach(vocab, text, id)
    {
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= NYB_TOKEN_ID_LIMIT)
            return nyb_fail(err, NYB_E_FORMAT, "%s: token '%.100s' has no id in [0, %d)", name,
                            text, NYB_TOKEN_ID_LIMIT);
        const size_t length = strlen(text);
        if (length > NYB_TOKEN_LENGTH_LIMIT)
            return nyb_fail(err, NYB_E_FORMAT, "%s: a token is %zu bytes long, the limit is %d",
                            name, length, NYB_TOKEN_LENGTH_LIMIT);
        const nyb_token token = {.text = text, .length = (uint32_t) length, .id = (uint32_t) value};
        status = nyb_vocabulary_add(&t->vocabulary, &t->arena, token, name, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

typedef struct text_range {
    const char *at;
    size_t length;
} text_range;

// The two halves of a merge: ["a", "b"], or "a b" with one space.
static nyb_status merge_halves(const json_t *merge, text_range half[2], size_t rank,
                               const char *name, nyb_err *err)
{
    const json_t *const first = json_array_get(merge, 0), *const second = json_array_get(merge, 1);
    if (json_array_size(merge) == 2 && json_is_string(first) && json_is_string(second)) {
        half[0] = (text_range){json_string_value(first), json_string_length(first)};
        half[1] = (text_range){json_string_value(second), json_string_length(second)};
        return NYB_OK;
    }
    const char *const text = json_string_value(merge);
    const size_t length = json_string_length(merge);
    const char *const space = text ? memchr(text, ' ', length) : NULL;
    if (!space || memchr(space + 1, ' ', length - (size_t) (space + 1 - text)))
        return nyb_fail(err, NYB_E_FORMAT, "%s: merge %zu is not two tokens", name, rank);
    half[0] = (text_range){text, (size_t) (space - text)};
    half[1] = (text_range){space + 1, length - half[0].length - 1};
    return NYB_OK;
}

static nyb_status find_half(const nyb_tokenizer *t, const char *text, size_t length, uint32_t *out,
                            const char *name, nyb_err *err)
{
    const int64_t id = nyb_vocabulary_find(&t->vocabulary, text, length);
    if (id < 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: the merges use '%.*s', which is not in the vocabulary", name,
                        (int) (length < 100 ? length : 100), text);
    *out = (uint32_t) id;
    return NYB_OK;
}

// The merge of two halves into their text put together; the second one's prefix is left out.
static nyb_status make_merge(const nyb_tokenizer *t, const text_range half[2], nyb_merge *out,
                             nyb_bytes *whole, const char *name, nyb_err *err)
{
    const size_t prefix = strlen(t->bpe.prefix);
    nyb_status status = find_half(t, half[0].at, half[0].length, &out->left, name, err);
    if (status == NYB_OK)
        status = find_half(t, half[1].at, half[1].length, &out->right, name, err);
    if (status != NYB_OK)
        return status;
    if (half[1].length < prefix)
        return nyb_fail(err, NYB_E_FORMAT, "%s: the merges use '%.100s', which has no prefix '%s'",
                        name, half[1].at, t->bpe.prefix);
    nyb_bytes_reset(whole);
    nyb_bytes_add(whole, half[0].at, half[0].length);
    nyb_bytes_add(whole, half[1].at + prefix, half[1].length - prefix);
    status = nyb_bytes_status(whole, err);
    return status == NYB_OK
               ? find_half(t, whole->count ? whole->at : "", whole->count, &out->result, name, err)
               : status;
}

static nyb_status read_merges(nyb_tokenizer *t, const json_t *model, nyb_bytes *whole,
                              const char *name, nyb_err *err)
{
    const json_t *const merges = json_object_get(model, "merges");
    if (!json_is_array(merges))
        return nyb_fail(err, NYB_E_FORMAT, "%s: the model has no list 'merges'", name);
    const size_t count = json_array_size(merges);
    if (count >= UINT32_MAX / 2)
        return nyb_fail(err, NYB_E_FORMAT, "%s: %zu merges are too many", name, count);
    t->bpe.merges = nyb_arena_alloc(&t->arena, count + 1, sizeof(*t->bpe.merges));
    if (!t->bpe.merges)
        return nyb_no_memory(err, "the merges", count, sizeof(*t->bpe.merges));

    for (size_t i = 0; i < count; i++) {
        const json_t *const item = json_array_get(merges, i);
        const char *const text = json_string_value(item);
        if (text && strncmp(text, "#version", 8) == 0)
            continue; // the first line of a merges.txt
        text_range half[2] = {{0}};
        nyb_merge *const merge = &t->bpe.merges[t->bpe.merge_count];
        nyb_status status = merge_halves(item, half, i, name, err);
        if (status == NYB_OK)
            status = make_merge(t, half, merge, whole, name, err);
        if (status != NYB_OK)
            return status;
        merge->rank = (uint32_t) t->bpe.merge_count++;
    }
    return NYB_OK;
}

// An optional string of the model, "" when it is missing or null.
static nyb_status read_affix(nyb_tokenizer *t, const json_t *model, const char *key,
                             const char **out, const char *name, nyb_err *err)
{
    const char *text = "";
    const nyb_status status = nyb_json_text(model, key, &text, name, err);
    if (status != NYB_OK)
        return status;
    *out = nyb_arena_text(&t->arena, text, strlen(text));
    return *out ? NYB_OK : nyb_no_memory(err, key, strlen(text), 1);
}

static nyb_status read_unknown(nyb_tokenizer *t, const json_t *model, const char *name,
                               nyb_err *err)
{
    const char *text = NULL;
    t->bpe.unknown = -1;
    const nyb_status status = nyb_json_text(model, "unk_token", &text, name, err);
    if (status != NYB_OK || !text)
        return status;
    t->bpe.unknown = nyb_vocabulary_find(&t->vocabulary, text, strlen(text));
    t->bpe.unknown_missing = t->bpe.unknown < 0;
    t->unk = t->bpe.unknown;
    return NYB_OK;
}

static nyb_status load_bpe(nyb_tokenizer *t, const json_t *model, const char *name, nyb_err *err)
{
    double dropout = 0;
    t->bpe.vocabulary = &t->vocabulary;
    nyb_status status = nyb_json_real(model, "dropout", &dropout, name, err);
    if (status == NYB_OK && dropout > 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: BPE with dropout %g is not supported", name,
                        dropout);
    if (status == NYB_OK)
        status = nyb_tokenizer_read_vocabulary(t, model, name, err);
    if (status == NYB_OK)
        status = read_affix(t, model, "continuing_subword_prefix", &t->bpe.prefix, name, err);
    if (status == NYB_OK)
        status = read_affix(t, model, "end_of_word_suffix", &t->bpe.suffix, name, err);
    if (status == NYB_OK)
        status = read_unknown(t, model, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(model, "fuse_unk", &t->bpe.fuse_unknown, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(model, "byte_fallback", &t->bpe.byte_fallback, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(model, "ignore_merges", &t->bpe.whole_first, name, err);
    if (status != NYB_OK)
        return status;

    nyb_bytes whole = {0};
    status = read_merges(t, model, &whole, name, err);
    nyb_bytes_clear(&whole);
    return status == NYB_OK ? nyb_bpe_finish(&t->bpe, &t->arena, err) : status;
}

typedef struct model_kind {
    const char *name;
    nyb_status (*load)(nyb_tokenizer *t, const json_t *model, const char *name, nyb_err *err);
} model_kind;

static const model_kind model_kinds[] = {
    {"BPE", load_bpe},
    {"WordPiece", nyb_tokenizer_load_wordpiece},
    {"Unigram", nyb_tokenizer_load_unigram},
};

const char *nyb_tokenizer_model_name_at(size_t index)
{
    return index < sizeof(model_kinds) / sizeof(model_kinds[0]) ? model_kinds[index].name : NULL;
}

// Older files name no type.
static const char *guess_type(const json_t *model)
{
    if (json_object_get(model, "merges"))
        return "BPE";
    if (json_object_get(model, "max_input_chars_per_word"))
        return "WordPiece";
    return json_is_array(json_object_get(model, "vocab")) ? "Unigram" : NULL;
}

static nyb_status load_model(nyb_tokenizer *t, const json_t *model, const char *name, nyb_err *err)
{
    if (!json_is_object(model))
        return nyb_fail(err, NYB_E_FORMAT, "%s: has no object 'model'", name);
    const char *type = guess_type(model);
    const nyb_status status = nyb_json_text(model, "type", &type, name, err);
    if (status != NYB_OK)
        return status;
    if (!type)
        return nyb_fail(err, NYB_E_FORMAT, "%s: the model has no 'type'", name);
    for (size_t i = 0; i < sizeof(model_kinds) / sizeof(model_kinds[0]); i++)
        if (strcmp(model_kinds[i].name, type) == 0)
            return model_kinds[i].load(t, model, name, err);
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: tokenizer model '%s' is not supported", name,
                    type);
}

nyb_status nyb_added_token_read(nyb_added_token *out, const json_t *value, const char *name,
                                nyb_err *err)
{
    const json_t *const content = json_object_get(value, "content");
    *out = (nyb_added_token){0};
    if (!json_is_string(content))
        return nyb_fail(err, NYB_E_FORMAT, "%s: an added token has no string 'content'", name);
    out->text = json_string_value(content);
    out->length = json_string_length(content);
    if (out->length > NYB_TOKEN_LENGTH_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT, "%s: an added token is %zu bytes long, the limit is %d",
                        name, out->length, NYB_TOKEN_LENGTH_LIMIT);

    nyb_status status = nyb_json_bool(value, "special", &out->special, name, err);
    out->normalized = !out->special;
    if (status == NYB_OK)
        status = nyb_json_bool(value, "normalized", &out->normalized, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "single_word", &out->single_word, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "lstrip", &out->lstrip, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "rstrip", &out->rstrip, name, err);
    return status;
}

static nyb_status read_added(nyb_tokenizer *t, const json_t *list, const char *name, nyb_err *err)
{
    nyb_status status = nyb_vocabulary_init(&t->extra, &t->arena, json_array_size(list), err);
    if (list && !json_is_null(list) && !json_is_array(list))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'added_tokens' is not a list", name);
    for (size_t i = 0; i < json_array_size(list) && status == NYB_OK; i++) {
        nyb_added_token token;
        status = nyb_added_token_read(&token, json_array_get(list, i), name, err);
        if (status == NYB_OK)
            status = nyb_tokenizer_add(t, token, name, err);
    }
    return status;
}

nyb_status nyb_tokenizer_load_document(nyb_tokenizer *t, const json_t *document, const char *name,
                                       nyb_err *err)
{
    const char *version = "1.0";
    nyb_status status = nyb_json_text(document, "version", &version, name, err);
    if (status == NYB_OK && strcmp(version, "1.0") != 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: version '%.20s' is not supported", name,
                        version);
    if (status == NYB_OK)
        status = load_model(t, json_object_get(document, "model"), name, err);
    if (status == NYB_OK)
        status = nyb_normalizer_load(&t->normalizer, &t->arena,
                                     json_object_get(document, "normalizer"), name, err);
    if (status == NYB_OK)
        status = nyb_pretokenizer_load(&t->pretokenizer, &t->arena,
                                       json_object_get(document, "pre_tokenizer"), name, err);
    if (status == NYB_OK)
        status = nyb_decoder_load(&t->decoder, &t->arena, json_object_get(document, "decoder"),
                                  name, err);
    if (status == NYB_OK)
        status = nyb_postprocessor_load(&t->post, json_object_get(document, "post_processor"), name,
                                        err);
    if (status == NYB_OK)
        status = read_added(t, json_object_get(document, "added_tokens"), name, err);
    if (t->model == NYB_TOKEN_BPE)
        t->kind = nyb_pretokenizer_is_byte_level(t->pretokenizer) ? "byte-level BPE"
                  : t->bpe.byte_fallback                          ? "BPE with byte fallback"
                                                                  : "BPE";
    return status;
}

nyb_status nyb_tokenizer_load_json(nyb_tokenizer *t, const char *path, nyb_err *err)
{
    json_t *document = NULL;
    nyb_status status = nyb_json_load(&document, path, err);
    if (status == NYB_OK && !json_is_object(document))
        status = nyb_fail(err, NYB_E_FORMAT, "%s: is no JSON object", path);
    if (status == NYB_OK)
        status = nyb_tokenizer_load_document(t, document, path, err);
    json_decref(document);
    return status;
}
