#include "model/gguf_folder.h"

#include <string.h>

#include "core/file.h"
#include "model/gguf_config.h"
#include "model/spm_model.h"
#include "model/tokenizer_private.h"

// ---- config.json ----------------------------------------------------------------------------

// What a family's own configuration calls a key that others call otherwise.
static const struct {
    const char *model_type, *from, *to;
} spellings[] = {
    {"gpt2", "hidden_size", "n_embd"},
    {"gpt2", "num_hidden_layers", "n_layer"},
    {"gpt2", "num_attention_heads", "n_head"},
    {"gpt2", "intermediate_size", "n_inner"},
    {"gpt2", "max_position_embeddings", "n_positions"},
    {"gpt2", "layer_norm_eps", "layer_norm_epsilon"},
    {"gpt2", "num_key_value_heads", NULL},
    {"gpt2", "rope_theta", NULL},
    {"falcon", "num_key_value_heads", "num_kv_heads"},
    {"falcon", "intermediate_size", "ffn_hidden_size"},
    {"falcon", "layer_norm_eps", "layer_norm_epsilon"},
    {"mixtral", "num_experts", "num_local_experts"},
};

static void respell(json_t *doc, const char *model_type)
{
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
        json_t *const value = json_object_get(doc, spellings[i].from);
        if (!value || strcmp(spellings[i].model_type, model_type) != 0)
            continue;
        if (spellings[i].to)
            json_object_set(doc, spellings[i].to, value);
        json_object_del(doc, spellings[i].from);
    }
}

nyb_status nyb_gguf_folder_config(json_t **out, const nyb_gguf *file, nyb_err *err)
{
    nyb_gguf_text name = {"", 0};
    size_t pad = SIZE_MAX;
    nyb_status status = nyb_gguf_config(out, file, err);
    if (status == NYB_OK)
        status = nyb_gguf_string(file, "general.architecture", &name, err);
    if (status == NYB_OK)
        status = nyb_gguf_size(file, "tokenizer.ggml.padding_token_id", &pad, err);
    if (status != NYB_OK) {
        json_decref(*out);
        *out = NULL;
        return status;
    }
    const nyb_gguf_arch *const arch = nyb_gguf_arch_of_file(file, name);
    json_object_set_new(*out, "architectures", json_pack("[s]", arch->class));
    json_object_set_new(*out, "pad_token_id",
                        pad <= INT32_MAX ? json_integer((json_int_t) pad) : json_null());
    respell(*out, arch->model_type);
    return NYB_OK;
}

// ---- SentencePiece --------------------------------------------------------------------------

// A message of Protocol Buffers being written, in an arena.
typedef struct message {
    nyb_arena *arena;
    unsigned char *at;
    size_t length, room;
    bool full; // memory ran out
} message;

static void put_byte(message *m, unsigned value)
{
    if (m->length == m->room && !m->full) {
        const size_t room = m->room ? 2 * m->room : 256;
        unsigned char *const at = nyb_arena_alloc(m->arena, room, 1);
        m->full = !at;
        if (at && m->length)
            memcpy(at, m->at, m->length);
        m->at = at ? at : m->at;
        m->room = at ? room : m->room;
    }
    if (!m->full)
        m->at[m->length++] = (unsigned char) value;
}

static void put_number(message *m, uint64_t value)
{
    for (; value > 127; value >>= 7)
        put_byte(m, (unsigned) (value & 127) | 128);
    put_byte(m, (unsigned) value);
}

static void put_varint(message *m, unsigned field, uint64_t value)
{
    put_number(m, (uint64_t) field << 3);
    put_number(m, value);
}

static void put_bytes(message *m, unsigned field, const void *at, size_t length)
{
    put_number(m, (uint64_t) field << 3 | 2);
    put_number(m, length);
    for (size_t i = 0; i < length; i++)
        put_byte(m, ((const unsigned char *) at)[i]);
}

static void put_float(message *m, unsigned field, float value)
{
    unsigned char bytes[sizeof(value)];
    memcpy(bytes, &value, sizeof(value));
    put_number(m, (uint64_t) field << 3 | 5);
    for (size_t i = 0; i < sizeof(bytes); i++)
        put_byte(m, bytes[i]);
}

// sentencepiece_model.proto: pieces are field 1, TrainerSpec 2, NormalizerSpec 3.
static void put_model(message *m, const nyb_spm_model *spm)
{
    const struct {
        unsigned field;
        int64_t id;
    } ids[] = {{40, spm->unk_id}, {41, spm->bos_id}, {42, spm->eos_id}, {43, spm->pad_id}};
    for (size_t i = 0; i < spm->count; i++) {
        const nyb_spm_piece *const p = &spm->pieces[i];
        message piece = {.arena = m->arena};
        put_bytes(&piece, 1, p->text, p->length);
        put_float(&piece, 2, p->score);
        put_varint(&piece, 3, (uint64_t) p->type);
        put_bytes(m, 1, piece.at, piece.length);
        m->full |= piece.full;
    }
    message trainer = {.arena = m->arena}, normalizer = {.arena = m->arena};
    put_varint(&trainer, 3, spm->model_type);
    put_varint(&trainer, 4, spm->count);
    put_varint(&trainer, 35, spm->byte_fallback);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        put_varint(&trainer, ids[i].field, (uint64_t) ids[i].id); // -1 has ten bytes, as it should
    put_bytes(m, 2, trainer.at, trainer.length);
    put_bytes(&normalizer, 1, "identity", 8);
    put_varint(&normalizer, 3, spm->spaces.add_dummy_prefix);
    put_varint(&normalizer, 4, spm->spaces.remove_extra);
    put_varint(&normalizer, 5, 1); // spaces are written as a character of their own
    put_bytes(m, 3, normalizer.at, normalizer.length);
    m->full |= trainer.full || normalizer.full;
}

static nyb_status save_spm(const nyb_gguf *file, const char *path, nyb_arena *arena, nyb_err *err)
{
    nyb_spm_model spm;
    const nyb_status status = nyb_gguf_spm_model(&spm, file, arena, err);
    if (status != NYB_OK)
        return status;
    message m = {.arena = arena};
    put_model(&m, &spm);
    return m.full ? nyb_no_memory(err, path, m.length, 2)
                  : nyb_file_write(path, m.at, m.length, err);
}

// ---- Byte-level BPE -------------------------------------------------------------------------

static json_t *special_step(const char *text)
{
    return json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0);
}

// What stands before and behind a text.
static json_t *template_of(const char *before, size_t before_id, const char *after, size_t after_id)
{
    json_t *const single = json_array(), *const pair = json_array(), *const tokens = json_object();
    static const char *const parts[] = {"A", "B"};
    for (int i = 0; i < 2; i++) {
        json_t *const text = json_pack("{s:{s:s, s:i}}", "Sequence", "id", parts[i], "type_id", i);
        if (before)
            json_array_append_new(pair, special_step(before));
        json_array_append(pair, text);
        if (after)
            json_array_append_new(pair, special_step(after));
        if (i == 0)
            json_array_extend(single, pair);
        json_decref(text);
    }
    const struct {
        const char *text;
        size_t id;
    } ends[] = {{before, before_id}, {after, after_id}};
    for (size_t i = 0; i < 2; i++) {
        if (ends[i].text)
            json_object_set_new(tokens, ends[i].text,
                                json_pack("{s:s, s:[I], s:[s]}", "id", ends[i].text, "ids",
                                          (json_int_t) ends[i].id, "tokens", ends[i].text));
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair",
                     pair, "special_tokens", tokens);
}

// Keys that the tokenizers library wants, and nybble does without.
static void complete(json_t *doc)
{
    static const char *const model_keys[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                             "end_of_word_suffix"};
    json_t *const model = json_object_get(doc, "model");
    size_t index = 0;
    json_t *token = NULL;
    json_object_set_new(doc, "version", json_string("1.0"));
    json_object_set_new(doc, "truncation", json_null());
    json_object_set_new(doc, "padding", json_null());
    for (size_t i = 0; i < sizeof(model_keys) / sizeof(model_keys[0]); i++)
        json_object_set_new(model, model_keys[i], json_null());
    json_object_set_new(model, "fuse_unk", json_false());
    json_object_set_new(model, "byte_fallback", json_false());
    json_array_foreach(json_object_get(doc, "added_tokens"), index, token)
    {
        json_object_set_new(token, "single_word", json_false());
        json_object_set_new(token, "lstrip", json_false());
        json_object_set_new(token, "rstrip", json_false());
    }
    json_object_update_new(
        json_object_get(doc, "decoder"),
        json_pack("{s:b, s:b, s:b}", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1));
}

// ---- Both -----------------------------------------------------------------------------------

// The token of an id that the metadata name; NULL: none.
static const char *token_of(const nyb_gguf *file, const char *key, size_t *id, nyb_arena *arena)
{
    const nyb_gguf_value *const tokens = nyb_gguf_find(file, "tokenizer.ggml.tokens");
    *id = SIZE_MAX;
    if (nyb_gguf_size(file, key, id, NULL) != NYB_OK || !tokens || !tokens->texts ||
        *id >= tokens->count)
        return NULL;
    return nyb_arena_text(arena, tokens->texts[*id].at, tokens->texts[*id].length);
}

static bool flag_of(const nyb_gguf *file, const char *key, bool otherwise)
{
    bool value = otherwise;
    return nyb_gguf_bool(file, key, &value, NULL) == NYB_OK ? value : otherwise;
}

typedef struct ends {
    const char *bos, *eos, *unk, *pad;
    size_t bos_id, eos_id;
    bool add_bos, add_eos;
} ends;

static ends ends_of(const nyb_gguf *file, bool spm, nyb_arena *arena)
{
    size_t other = 0;
    ends e = {0};
    e.bos = token_of(file, "tokenizer.ggml.bos_token_id", &e.bos_id, arena);
    e.eos = token_of(file, "tokenizer.ggml.eos_token_id", &e.eos_id, arena);
    e.unk = token_of(file, "tokenizer.ggml.unknown_token_id", &other, arena);
    e.pad = token_of(file, "tokenizer.ggml.padding_token_id", &other, arena);
    e.add_bos = e.bos && flag_of(file, "tokenizer.ggml.add_bos_token", spm);
    e.add_eos = e.eos && flag_of(file, "tokenizer.ggml.add_eos_token", false);
    return e;
}

static nyb_status save_config(const nyb_gguf *file, const ends *e, bool spm, const char *path,
                              nyb_err *err)
{
    nyb_gguf_text template = {NULL, 0}, arch = {"", 0};
    nyb_status status = nyb_gguf_string(file, "tokenizer.chat_template", &template, err);
    if (status == NYB_OK)
        status = nyb_gguf_string(file, "general.architecture", &arch, err);
    if (status != NYB_OK)
        return status;
    const bool gemma = arch.length >= 5 && memcmp(arch.at, "gemma", 5) == 0;
    json_t *const doc = json_pack("{s:s, s:s?, s:s?, s:s?, s:s?, s:b, s:b, s:b}", "tokenizer_class",
                                  !spm    ? "PreTrainedTokenizerFast"
                                  : gemma ? "GemmaTokenizer"
                                          : "LlamaTokenizer",
                                  "bos_token", e->bos, "eos_token", e->eos, "unk_token", e->unk,
                                  "pad_token", e->pad, "add_bos_token", e->add_bos, "add_eos_token",
                                  e->add_eos, "clean_up_tokenization_spaces", 0);
    if (doc && template.at)
        json_object_set_new(doc, "chat_template", json_stringn(template.at, template.length));
    status = doc ? nyb_json_save(doc, path, err) : nyb_no_memory(err, path, 1, 1);
    json_decref(doc);
    return status;
}

static nyb_status save_bpe(const nyb_gguf *file, const ends *e, const char *path, nyb_err *err)
{
    json_t *doc = NULL;
    nyb_status status = nyb_gguf_bpe_document(&doc, file, err);
    if (status != NYB_OK)
        return status;
    complete(doc);
    if (e->add_bos || e->add_eos)
        json_object_set_new(doc, "post_processor",
                            template_of(e->add_bos ? e->bos : NULL, e->bos_id,
                                        e->add_eos ? e->eos : NULL, e->eos_id));
    status = nyb_json_save(doc, path, err);
    json_decref(doc);
    return status;
}

static nyb_status save_all(const nyb_gguf *file, const char *folder, nyb_arena *arena, nyb_err *err)
{
    nyb_gguf_text kind = {"", 0};
    const nyb_status known = nyb_gguf_string(file, "tokenizer.ggml.model", &kind, err);
    const bool spm = kind.length == 5 && memcmp(kind.at, "llama", 5) == 0;
    const char *const path =
        nyb_path_join(arena, folder, spm ? "tokenizer.model" : "tokenizer.json");
    const char *const config = nyb_path_join(arena, folder, "tokenizer_config.json");
    if (known != NYB_OK)
        return known;
    if (!path || !config)
        return nyb_no_memory(err, "a path", strlen(folder), 1);
    const ends e = ends_of(file, spm, arena);
    const nyb_status status =
        spm ? save_spm(file, path, arena, err) : save_bpe(file, &e, path, err);
    return status == NYB_OK ? save_config(file, &e, spm, config, err) : status;
}

nyb_status nyb_gguf_folder_tokenizer(const nyb_gguf *file, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    const nyb_status status = save_all(file, folder, &arena, err);
    nyb_arena_clear(&arena);
    return status;
}
