// The "model" of a tokenizer.json where it is WordPiece or Unigram; BPE is in tokenizer_json.c.
#include <math.h>

#include "core/json.h"
#include "model/tokenizer_private.h"

enum { LONGEST_WORD = 100 }; // characters, BERT's own limit

nyb_status nyb_tokenizer_load_wordpiece(nyb_tokenizer *t, const json_t *model, const char *name,
                                        nyb_err *err)
{
    const char *prefix = "##", *unknown = "[UNK]";
    size_t longest = LONGEST_WORD;
    nyb_status status = nyb_tokenizer_read_vocabulary(t, model, name, err);
    if (status == NYB_OK)
        status = nyb_json_text(model, "continuing_subword_prefix", &prefix, name, err);
    if (status == NYB_OK)
        status = nyb_json_text(model, "unk_token", &unknown, name, err);
    if (status == NYB_OK)
        status = nyb_json_size(model, "max_input_chars_per_word", &longest, name, err);
    if (status != NYB_OK)
        return status;

    prefix = nyb_arena_text(&t->arena, prefix, strlen(prefix));
    if (!prefix)
        return nyb_no_memory(err, "a prefix", 1, 1);
    t->model = NYB_TOKEN_WORDPIECE;
    t->kind = "WordPiece";
    t->unk = nyb_vocabulary_find(&t->vocabulary, unknown, strlen(unknown));
    t->wordpiece = (nyb_wordpiece){
        .vocabulary = &t->vocabulary, .prefix = prefix, .unknown = t->unk, .longest_word = longest};
    return nyb_wordpiece_finish(&t->wordpiece, err);
}

// [["text", score], ...] by id.
static nyb_status read_scored(nyb_tokenizer *t, const json_t *vocab, double *scores,
                              const char *name, nyb_err *err)
{
    nyb_status status = nyb_vocabulary_init(&t->vocabulary, &t->arena, json_array_size(vocab), err);
    for (size_t i = 0; i < json_array_size(vocab) && status == NYB_OK; i++) {
        const json_t *const entry = json_array_get(vocab, i);
        const json_t *const text = json_array_get(entry, 0), *const score =
                                                                 json_array_get(entry, 1);
        if (!json_is_string(text) || !json_is_number(score))
            return nyb_fail(err, NYB_E_FORMAT, "%s: entry %zu of 'vocab' is not [text, score]",
                            name, i);
        const size_t length = json_string_length(text);
        if (length > NYB_TOKEN_LENGTH_LIMIT)
            return nyb_fail(err, NYB_E_FORMAT, "%s: a token is %zu bytes long, the limit is %d",
                            name, length, NYB_TOKEN_LENGTH_LIMIT);
        scores[i] = json_number_value(score);
        const nyb_token token = {
            .text = json_string_value(text), .length = (uint32_t) length, .id = (uint32_t) i};
        status = nyb_vocabulary_add(&t->vocabulary, &t->arena, token, name, err);
    }
    return status;
}

// Text without a token scores this much less than the worst token.
static const double unknown_penalty = 10.0;

nyb_status nyb_tokenizer_load_unigram(nyb_tokenizer *t, const json_t *model, const char *name,
                                      nyb_err *err)
{
    const json_t *const vocab = json_object_get(model, "vocab");
    const json_t *const unknown = json_object_get(model, "unk_id");
    const size_t count = json_array_size(vocab);
    if (!json_is_array(vocab) || count >= NYB_TOKEN_ID_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT, "%s: the model has no list 'vocab' of at most %d tokens",
                        name, NYB_TOKEN_ID_LIMIT);
    if (unknown && !json_is_null(unknown) &&
        (!json_is_integer(unknown) || json_integer_value(unknown) < 0 ||
         (size_t) json_integer_value(unknown) >= count))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'unk_id' is not an id of the %zu tokens", name,
                        count);
    double *const scores = nyb_arena_alloc(&t->arena, count + 1, sizeof(*scores));
    if (!scores)
        return nyb_no_memory(err, "scores", count, sizeof(*scores));
    nyb_status status = read_scored(t, vocab, scores, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(model, "byte_fallback", &t->unigram.byte_fallback, name, err);
    if (status != NYB_OK)
        return status;

    double lowest = INFINITY;
    for (size_t i = 0; i < count; i++)
        lowest = scores[i] < lowest ? scores[i] : lowest;
    t->model = NYB_TOKEN_UNIGRAM;
    t->kind = t->unigram.byte_fallback ? "unigram with byte fallback" : "unigram";
    t->unk = json_is_integer(unknown) ? json_integer_value(unknown) : -1;
    t->unigram.vocabulary = &t->vocabulary;
    t->unigram.scores = scores;
    t->unigram.unknown = t->unk;
    t->unigram.unknown_score = lowest - unknown_penalty;
    return nyb_unigram_finish(&t->unigram, err);
}
