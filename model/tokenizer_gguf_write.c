// The tokenizer of a folder as the arrays that a GGUF file has.
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "model/gguf_config.h"
#include "model/tokenizer_cuts.h"
#include "model/tokenizer_private.h"

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

// What is being written.
typedef struct writing {
    nyb_gguf_head *head;
    const char *folder;
    const nyb_tokenizer *t;
    nyb_gguf_text *texts; // [vocab]
    int32_t *types;       // [vocab]
    size_t vocab;
    nyb_err *err;
} writing;

static nyb_status fill(writing *w)
{
    nyb_arena *const arena = &w->head->arena;
    w->texts = nyb_arena_alloc(arena, w->vocab, sizeof(*w->texts));
    w->types = nyb_arena_alloc(arena, w->vocab, sizeof(*w->types));
    if (!w->texts || !w->types)
        return nyb_no_memory(w->err, "tokens", w->vocab, sizeof(*w->texts));
    if (nyb_tokenizer_size(w->t) > w->vocab)
        return nyb_fail(w->err, NYB_E_FORMAT, "%s: the tokenizer has %zu tokens, the model %zu",
                        w->folder, nyb_tokenizer_size(w->t), w->vocab);
    for (size_t i = 0; i < w->vocab; i++) {
        size_t length = 0;
        const char *text = nyb_tokenizer_text(w->t, (uint32_t) i, &length);
        const nyb_added_token *const added = nyb_added_tokens_at(&w->t->added, (uint32_t) i);
        w->types[i] = added ? added->special ? TYPE_CONTROL : TYPE_USER : TYPE_NORMAL;
        if (!text) {
            text = nyb_arena_format(arena, "[PAD%zu]", i);
            length = text ? strlen(text) : 0;
            w->types[i] = TYPE_UNUSED;
        }
        if (!text)
            return nyb_no_memory(w->err, "tokens", w->vocab, 1);
        w->texts[i] = (nyb_gguf_text){text, length};
    }
    return NYB_OK;
}

static bool has(const nyb_tokens *ids, int64_t id)
{
    for (size_t i = 0; i < ids->count; i++) {
        if ((int64_t) ids->at[i] == id)
            return true;
    }
    return false;
}

static void add_ids(const writing *w, const char *model, const char *pre)
{
    const nyb_tokenizer *const t = w->t;
    const struct {
        const char *key;
        int64_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", t->bos},
               {"tokenizer.ggml.eos_token_id", t->eos},
               {"tokenizer.ggml.unknown_token_id", t->unk},
               {"tokenizer.ggml.padding_token_id", t->pad}};
    nyb_gguf_add_text(w->head, "tokenizer.ggml.model", model);
    nyb_gguf_add_text(w->head, "tokenizer.ggml.pre", pre);
    nyb_gguf_add_texts(w->head, "tokenizer.ggml.tokens", w->texts, w->vocab);
    nyb_gguf_add_i32s(w->head, "tokenizer.ggml.token_type", w->types, w->vocab);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        if (ids[i].id >= 0)
            nyb_gguf_add_u32(w->head, ids[i].key, (uint32_t) ids[i].id);
    }
    nyb_gguf_add_bool(w->head, "tokenizer.ggml.add_bos_token",
                      t->bos >= 0 && has(&t->post.before, t->bos));
    nyb_gguf_add_bool(w->head, "tokenizer.ggml.add_eos_token",
                      t->eos >= 0 && has(&t->post.after, t->eos));
}

// ---- Byte-level BPE -------------------------------------------------------------------------

static nyb_status add_merges(const writing *w, const json_t *merges)
{
    const size_t count = json_array_size(merges);
    nyb_gguf_text *const texts = nyb_arena_alloc(&w->head->arena, count, sizeof(*texts));
    if (!texts)
        return nyb_no_memory(w->err, "merges", count, sizeof(*texts));
    for (size_t i = 0; i < count; i++) {
        const json_t *const item = json_array_get(merges, i);
        const char *text = json_string_value(item);
        if (!text)
            text = nyb_arena_format(&w->head->arena, "%s %s",
                                    json_string_value(json_array_get(item, 0)),
                                    json_string_value(json_array_get(item, 1)));
        if (!text)
            return nyb_no_memory(w->err, "merges", count, 1);
        texts[i] = (nyb_gguf_text){text, strlen(text)};
    }
    nyb_gguf_add_texts(w->head, "tokenizer.ggml.merges", texts, count);
    return NYB_OK;
}

static nyb_status add_bpe(const writing *w, const json_t *doc)
{
    nyb_arena arena = {0};
    const json_t *const model = json_object_get(doc, "model");
    const json_t *const pre = json_object_get(doc, "pre_tokenizer");
    const bool whole = json_is_true(json_object_get(model, "ignore_merges"));
    const char *cut = nyb_tokenizer_cut_name(&arena, pre, whole);
    if (!cut) // where merges lead to every token, it makes no difference
        cut = nyb_tokenizer_cut_name(&arena, pre, !whole);
    nyb_status status = NYB_OK;
    if (w->t->bpe.byte_fallback)
        status = nyb_fail(w->err, NYB_E_UNSUPPORTED,
                          "%s: a tokenizer.json with byte fallback is not written to a GGUF file; "
                          "put the tokenizer.model that it was made of in its place",
                          w->folder);
    else if (!cut)
        status =
            nyb_fail(w->err, NYB_E_UNSUPPORTED,
                     "%s: GGUF has no name for the pre_tokenizer of tokenizer.json", w->folder);
    else
        add_ids(w, "gpt2", cut);
    nyb_arena_clear(&arena);
    return status == NYB_OK ? add_merges(w, json_object_get(model, "merges")) : status;
}

// ---- SentencePiece --------------------------------------------------------------------------

static nyb_status add_spm(const writing *w, const char *path)
{
    nyb_map map;
    nyb_spm_model m;
    nyb_status status = nyb_map_open(&map, path, w->err);
    if (status != NYB_OK)
        return status;
    float *const scores = nyb_arena_alloc(&w->head->arena, w->vocab, sizeof(*scores));
    status = nyb_spm_model_read(&m, &w->head->arena, map.at ? (const char *) map.at : "", map.bytes,
                                path, w->err);
    if (status == NYB_OK && m.model_type != 2)
        status =
            nyb_fail(w->err, NYB_E_UNSUPPORTED,
                     "%s: a SentencePiece model of this kind is not written to a GGUF file", path);
    if (status == NYB_OK && !scores)
        status = nyb_no_memory(w->err, "scores", w->vocab, sizeof(*scores));
    for (size_t i = 0; status == NYB_OK && i < w->vocab; i++) {
        scores[i] = i < m.count ? m.pieces[i].score : -1000.0f;
        if (i < m.count && w->types[i] == TYPE_NORMAL)
            w->types[i] = (int32_t) m.pieces[i].type;
    }
    nyb_map_close(&map);
    if (status != NYB_OK)
        return status;
    add_ids(w, "llama", "default");
    nyb_gguf_add_f32s(w->head, "tokenizer.ggml.scores", scores, w->vocab);
    nyb_gguf_add_bool(w->head, "tokenizer.ggml.add_space_prefix", m.spaces.add_dummy_prefix);
    return NYB_OK;
}

// ---- Both -----------------------------------------------------------------------------------

static nyb_status add_template(const writing *w)
{
    nyb_arena *const arena = &w->head->arena;
    const char *const file = nyb_path_join(arena, w->folder, "chat_template.jinja");
    const char *const config = nyb_path_join(arena, w->folder, "tokenizer_config.json");
    json_t *doc = NULL;
    char *text = NULL;
    size_t length = 0;
    nyb_status status =
        file && config ? NYB_OK : nyb_no_memory(w->err, "a path", strlen(w->folder), 1);
    if (status == NYB_OK && nyb_path_exists(file))
        status = nyb_file_read(arena, file, 1 << 24, &text, &length, w->err);
    else if (status == NYB_OK && nyb_path_exists(config))
        status = nyb_json_load(&doc, config, w->err);
    const char *const inside = json_string_value(json_object_get(doc, "chat_template"));
    if (status == NYB_OK && (text || inside))
        nyb_gguf_add_text(w->head, "tokenizer.chat_template", text ? text : inside);
    json_decref(doc);
    return status;
}

static nyb_status add_arrays(const writing *w)
{
    nyb_arena *const arena = &w->head->arena;
    const char *const json = nyb_path_join(arena, w->folder, "tokenizer.json");
    const char *const spm = nyb_path_join(arena, w->folder, "tokenizer.model");
    if (!json || !spm)
        return nyb_no_memory(w->err, "a path", strlen(w->folder), 1);
    // The model that others were made of says most.
    if (nyb_path_exists(spm))
        return add_spm(w, spm);
    if (!nyb_path_exists(json))
        return nyb_fail(w->err, NYB_E_UNSUPPORTED,
                        "%s: only tokenizer.json and tokenizer.model are written to a GGUF file",
                        w->folder);
    json_t *doc = NULL;
    nyb_status status = nyb_json_load(&doc, json, w->err);
    const char *const kind =
        json_string_value(json_object_get(json_object_get(doc, "model"), "type"));
    if (status == NYB_OK && kind && strcmp(kind, "BPE") != 0)
        status = nyb_fail(w->err, NYB_E_UNSUPPORTED,
                          "%s: a tokenizer of kind '%s' is not written to a GGUF file", json, kind);
    if (status == NYB_OK)
        status = add_bpe(w, doc);
    json_decref(doc);
    return status;
}

nyb_status nyb_gguf_add_tokenizer(nyb_gguf_head *head, const char *folder, size_t vocab,
                                  nyb_err *err)
{
    nyb_tokenizer *t = NULL;
    const nyb_tokenizer_params rules = {.spm_rules = NYB_SPM_RULES_SENTENCEPIECE};
    nyb_status status = nyb_tokenizer_open(&t, folder, &rules, err);
    if (status != NYB_OK)
        return status;
    writing w = {.head = head, .folder = folder, .t = t, .vocab = vocab, .err = err};
    status = fill(&w);
    if (status == NYB_OK)
        status = add_arrays(&w);
    if (status == NYB_OK)
        status = add_template(&w);
    nyb_tokenizer_close(t);
    return status;
}
