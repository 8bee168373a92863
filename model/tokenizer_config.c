// What tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json say
// about a tokenizer, weighed as transformers weighs them.
#include "core/file.h"
#include "core/json.h"
#include "model/tokenizer_private.h"

static const char *const config_name = "tokenizer_config.json";

enum { FILE_LIMIT = 64 << 20 };

// Whole numbers are read as reals: "model_max_length" is often 10^30, and none is needed exactly.
static nyb_status parse(json_t **out, const char *text, size_t length, const char *path,
                        nyb_err *err)
{
    json_error_t fault;
    *out = json_loadb(text, length,
                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &fault);
    if (!*out)
        return nyb_fail(err, NYB_E_FORMAT, "%s: not JSON, line %d column %d: %s", path, fault.line,
                        fault.column, fault.text);
    if (!json_is_object(*out))
        return nyb_fail(err, NYB_E_FORMAT, "%s: is no JSON object", path);
    return NYB_OK;
}

static nyb_status load_if_there(json_t **out, nyb_arena *arena, const char *folder,
                                const char *file, nyb_err *err)
{
    const char *const path = nyb_path_join(arena, folder, file);
    char *text = NULL;
    size_t length = 0;
    if (!path)
        return nyb_no_memory(err, file, strlen(folder), 1);
    if (!nyb_path_exists(path))
        return NYB_OK;
    const nyb_status status = nyb_file_read(arena, path, FILE_LIMIT, &text, &length, err);
    return status == NYB_OK ? parse(out, text, length, path, err) : status;
}

nyb_status nyb_tokenizer_config_open(nyb_tokenizer_config *out, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    *out = (nyb_tokenizer_config){0};
    nyb_status status = load_if_there(&out->tokenizer, &arena, folder, config_name, err);
    if (status == NYB_OK)
        status = load_if_there(&out->specials, &arena, folder, "special_tokens_map.json", err);
    if (status == NYB_OK)
        status = load_if_there(&out->added, &arena, folder, "added_tokens.json", err);
    if (status == NYB_OK)
        status = load_if_there(&out->model, &arena, folder, "config.json", err);
    nyb_arena_clear(&arena);
    return status;
}

void nyb_tokenizer_config_close(nyb_tokenizer_config *config)
{
    json_decref(config->tokenizer);
    json_decref(config->specials);
    json_decref(config->added);
    json_decref(config->model);
    *config = (nyb_tokenizer_config){0};
}

nyb_prefix_scheme nyb_tokenizer_config_prefix(const nyb_tokenizer_config *config)
{
    const char *name = json_string_value(json_object_get(config->tokenizer, "tokenizer_class"));
    if (!name)
        name = json_string_value(json_object_get(config->model, "tokenizer_class"));
    if (!name || (strcmp(name, "LlamaTokenizer") != 0 && strcmp(name, "LlamaTokenizerFast") != 0))
        return NYB_PREFIX_NEVER;
    const json_t *const wanted = json_object_get(config->tokenizer, "add_prefix_space");
    if (json_is_false(wanted))
        return NYB_PREFIX_NEVER;
    const json_t *const legacy = json_object_get(config->tokenizer, "legacy");
    return json_is_true(legacy) ? NYB_PREFIX_ALWAYS : NYB_PREFIX_FIRST;
}

// added_tokens_decoder of tokenizer_config.json, or NULL.
static const json_t *declared_tokens(const nyb_tokenizer_config *config)
{
    return json_object_get(config->tokenizer, "added_tokens_decoder");
}

// What a file says under a key such as "bos_token". Without declared tokens
// special_tokens_map.json has the last word.
static const json_t *named(const nyb_tokenizer_config *config, const char *key)
{
    const json_t *const map = json_object_get(config->specials, key);
    if (map && !declared_tokens(config))
        return map;
    return json_object_get(config->tokenizer, key);
}

static bool same_text(const json_t *content, const nyb_added_token *token)
{
    return json_is_string(content) && json_string_length(content) == token->length &&
           memcmp(json_string_value(content), token->text, token->length) == 0;
}

// The flags of a token that is only named: those it was declared with, else a plain special one.
static nyb_status resolve(const nyb_tokenizer_config *config, const nyb_tokenizer *t,
                          nyb_added_token *token, nyb_err *err)
{
    const json_t *const declared = declared_tokens(config);
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *) (uintptr_t) declared, key, value)
    {
        if (same_text(json_object_get(value, "content"), token))
            return nyb_added_token_read(token, value, config_name, err);
    }
    const int64_t id = declared ? -1 : nyb_tokenizer_find(t, token->text, token->length);
    const nyb_added_token *const known =
        id >= 0 ? nyb_added_tokens_at(&t->added, (uint32_t) id) : NULL;
    if (known)
        *token = *known;
    return NYB_OK;
}

// Adds the token that `value` names: its text, or an object like an added token's.
static nyb_status add_named(const nyb_tokenizer_config *config, nyb_tokenizer *t,
                            const json_t *value, nyb_err *err)
{
    nyb_added_token token = {0};
    nyb_status status = NYB_OK;
    if (json_is_string(value)) {
        token.text = json_string_value(value);
        token.length = json_string_length(value);
        if (token.length > NYB_TOKEN_LENGTH_LIMIT)
            return nyb_fail(err, NYB_E_FORMAT, "%s: a token is %zu bytes long, the limit is %d",
                            config_name, token.length, NYB_TOKEN_LENGTH_LIMIT);
    } else if (json_is_object(value)) {
        status = nyb_added_token_read(&token, value, config_name, err);
    } else {
        return NYB_OK; // null, or a setting whose name ends like a token's
    }
    if (status == NYB_OK)
        status = resolve(config, t, &token, err);
    token.special = true;
    return status == NYB_OK ? nyb_tokenizer_add(t, token, config_name, err) : status;
}

static nyb_status add_declared(const nyb_tokenizer_config *config, nyb_tokenizer *t, nyb_err *err)
{
    json_t *const declared = (json_t *) (uintptr_t) declared_tokens(config);
    const char *key = NULL;
    json_t *value = NULL;
    // In the order of their ids, which is that of the file in all but odd ones; only tokens that
    // the tokenizer does not have depend on it.
    json_object_foreach(declared, key, value)
    {
        nyb_added_token token;
        nyb_status status = nyb_added_token_read(&token, value, config_name, err);
        if (status == NYB_OK)
            status = nyb_tokenizer_add(t, token, config_name, err);
        if (status != NYB_OK)
            return status;
    }
    if (declared)
        return NYB_OK;
    json_object_foreach(config->added, key, value)
    {
        const nyb_added_token token = {.text = key, .length = strlen(key), .normalized = true};
        if (token.length > NYB_TOKEN_LENGTH_LIMIT || nyb_tokenizer_find(t, key, token.length) >= 0)
            continue;
        const nyb_status status = nyb_tokenizer_add(t, token, "added_tokens.json", err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static const char *const token_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
enum { TOKEN_KEYS = sizeof(token_keys) / sizeof(token_keys[0]) };

static bool is_other_token_key(const char *key)
{
    const size_t length = strlen(key);
    if (length < 6 || strcmp(key + length - 6, "_token") != 0)
        return false;
    for (size_t i = 0; i < TOKEN_KEYS; i++)
        if (strcmp(key, token_keys[i]) == 0)
            return false;
    return true;
}

static nyb_status add_list(const nyb_tokenizer_config *config, nyb_tokenizer *t, const json_t *list,
                           nyb_err *err)
{
    nyb_status status = NYB_OK;
    const char *key = NULL;
    json_t *value = NULL;
    for (size_t i = 0; i < json_array_size(list) && status == NYB_OK; i++)
        status = add_named(config, t, json_array_get(list, i), err);
    json_object_foreach((json_t *) (uintptr_t) list, key, value)
    {
        if (status == NYB_OK)
            status = add_named(config, t, value, err);
    }
    return status;
}

static nyb_status add_all(const nyb_tokenizer_config *config, nyb_tokenizer *t, nyb_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    nyb_status status = add_declared(config, t, err);
    for (size_t i = 0; i < TOKEN_KEYS && status == NYB_OK; i++)
        status = add_named(config, t, named(config, token_keys[i]), err);
    json_object_foreach(config->tokenizer, key, value)
    {
        if (status == NYB_OK && is_other_token_key(key) && json_is_string(value))
            status = add_named(config, t, value, err);
    }
    const json_t *extra = named(config, "extra_special_tokens");
    if (!extra || json_is_null(extra))
        extra = named(config, "additional_special_tokens");
    return status == NYB_OK ? add_list(config, t, extra, err) : status;
}

// The id of the token under `key`. Where the files do not have the key, config.json's id of the
// model counts when *id has no value yet.
static nyb_status find_special(const nyb_tokenizer_config *config, const nyb_tokenizer *t,
                               const char *key, int64_t *id, nyb_err *err)
{
    const json_t *value = named(config, key);
    if (value) {
        if (json_is_object(value))
            value = json_object_get(value, "content");
        *id = json_is_string(value)
                  ? nyb_tokenizer_find(t, json_string_value(value), json_string_length(value))
                  : -1;
        return NYB_OK;
    }
    nyb_arena arena = {0};
    const char *const id_key = nyb_arena_format(&arena, "%s_id", key);
    if (!id_key)
        return nyb_no_memory(err, key, 1, 1);
    value = json_object_get(config->model, id_key);
    if (json_is_array(value))
        value = json_array_get(value, 0);
    const double number = json_is_real(value) ? json_real_value(value) : -1;
    if (*id < 0 && number >= 0 && number < (double) nyb_tokenizer_size(t))
        *id = (int64_t) number;
    nyb_arena_clear(&arena);
    return NYB_OK;
}

// Without a post-processor of its own a tokenizer gets what add_bos_token and add_eos_token ask.
static nyb_status add_ends(const nyb_tokenizer_config *config, nyb_tokenizer *t, nyb_err *err)
{
    bool bos = false, eos = false;
    nyb_status status = nyb_json_bool(config->tokenizer, "add_bos_token", &bos, config_name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(config->tokenizer, "add_eos_token", &eos, config_name, err);
    if (status == NYB_OK && bos && t->bos >= 0)
        status = nyb_tokens_add(&t->post.before, (uint32_t) t->bos, err);
    if (status == NYB_OK && eos && t->eos >= 0)
        status = nyb_tokens_add(&t->post.after, (uint32_t) t->eos, err);
    return status;
}

// A model's bos, eos and unk are added tokens even where no file names them.
static nyb_status add_known(nyb_tokenizer *t, const nyb_tokenizer_config *config, const char *key,
                            int64_t id, nyb_err *err)
{
    const nyb_token *const token =
        id >= 0 ? nyb_vocabulary_at(&t->vocabulary, (uint32_t) id) : NULL;
    if (!token || named(config, key))
        return NYB_OK;
    const nyb_added_token added = {.text = token->text, .length = token->length, .special = true};
    return nyb_tokenizer_add(t, added, config_name, err);
}

nyb_status nyb_tokenizer_config_apply(const nyb_tokenizer_config *config, nyb_tokenizer *t,
                                      bool with_ends, nyb_err *err)
{
    nyb_status status = add_all(config, t, err);
    if (status == NYB_OK && with_ends)
        status = add_known(t, config, "bos_token", t->bos, err);
    if (status == NYB_OK && with_ends)
        status = add_known(t, config, "eos_token", t->eos, err);
    if (status == NYB_OK && with_ends)
        status = add_known(t, config, "unk_token", t->unk, err);
    if (status == NYB_OK)
        status = find_special(config, t, "bos_token", &t->bos, err);
    if (status == NYB_OK)
        status = find_special(config, t, "eos_token", &t->eos, err);
    if (status == NYB_OK)
        status = find_special(config, t, "unk_token", &t->unk, err);
    if (status == NYB_OK)
        status = find_special(config, t, "pad_token", &t->pad, err);
    if (status == NYB_OK && with_ends)
        status = add_ends(config, t, err);
    return status;
}
