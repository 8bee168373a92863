#include "nybble/chat.h"

#include "core/file.h"
#include "core/json.h"
#include "model/jinja.h"
#include "model/tokenizer_private.h"
#include "model/unicode.h"

enum { TEMPLATE_LIMIT = 4 << 20 };

struct nyb_chat {
    const nyb_tokenizer *tokenizer;
    nyb_jinja *jinja;
    json_t *variables; // bos_token and the like
};

static const char *const token_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};

static json_t *token_named(const json_t *files[2], const char *key)
{
    for (size_t i = 0; i < 2; i++) {
        json_t *value = json_object_get(files[i], key);
        if (json_is_object(value))
            value = json_object_get(value, "content");
        if (json_is_string(value))
            return value;
    }
    return NULL;
}

static nyb_status set_tokens(nyb_chat *chat, const nyb_tokenizer_config *config, nyb_err *err)
{
    const json_t *files[2] = {config->tokenizer, config->specials};
    const int64_t known[2] = {nyb_tokenizer_bos(chat->tokenizer),
                              nyb_tokenizer_eos(chat->tokenizer)};
    int wrong = 0;
    chat->variables = json_object();
    for (size_t i = 0; i < sizeof(token_keys) / sizeof(token_keys[0]); i++) {
        json_t *const value = token_named(files, token_keys[i]);
        size_t length = 0;
        const bool unnamed = i < 2 && known[i] >= 0 && !json_object_get(files[0], token_keys[i]);
        const char *const text =
            unnamed ? nyb_tokenizer_text(chat->tokenizer, (uint32_t) known[i], &length) : NULL;
        if (value)
            wrong |= json_object_set(chat->variables, token_keys[i], value);
        else if (text)
            wrong |=
                json_object_set_new(chat->variables, token_keys[i], json_stringn(text, length));
    }
    wrong |= json_object_set_new(chat->variables, "add_generation_prompt", json_false());
    wrong |= json_object_set_new(chat->variables, "tools", json_null());
    wrong |= json_object_set_new(chat->variables, "documents", json_null());
    return chat->variables && wrong == 0 ? NYB_OK : nyb_no_memory(err, "a chat", 1, 1);
}

// The template in tokenizer_config.json: a string, or a list of named ones of which "default"
// counts.
static const json_t *template_in(const nyb_tokenizer_config *config)
{
    const json_t *const value = json_object_get(config->tokenizer, "chat_template");
    size_t i;
    json_t *one;
    if (!json_is_array(value))
        return value;
    json_array_foreach(value, i, one)
    {
        const char *const name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_object_get(one, "template");
    }
    return NULL;
}

static nyb_status open_template(nyb_chat *chat, const char *folder,
                                const nyb_tokenizer_config *config, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_err why = {0};
    const json_t *const value = template_in(config);
    const char *const path = nyb_path_join(&arena, folder, "chat_template.jinja");
    const char *source = "tokenizer_config.json";
    char *text = NULL;
    size_t length = 0;
    nyb_status status = path ? NYB_OK : nyb_no_memory(err, folder, strlen(folder), 1);
    if (status == NYB_OK && nyb_path_exists(path)) {
        source = "chat_template.jinja";
        status = nyb_file_read(&arena, path, TEMPLATE_LIMIT, &text, &length, err);
        if (status == NYB_OK && nyb_utf8_valid(text, length) < length)
            status = nyb_fail(err, NYB_E_FORMAT, "%s: is not UTF-8", path);
    } else if (status == NYB_OK && !json_is_string(value)) {
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "%s: has no chat template: neither chat_template.jinja nor "
                          "'chat_template' in tokenizer_config.json",
                          folder);
    }
    if (status == NYB_OK) {
        status = nyb_jinja_open(&chat->jinja, text ? text : json_string_value(value),
                                text ? length : json_string_length(value), &why);
        if (status != NYB_OK)
            (void) nyb_fail(err, status, "%s/%s: %.800s", folder, source, why.text);
    }
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_chat_open(nyb_chat **out, const char *folder, const nyb_tokenizer *tokenizer,
                         nyb_err *err)
{
    nyb_tokenizer_config config = {0};
    nyb_chat *const chat = nyb_alloc(1, sizeof(*chat));
    *out = NULL;
    if (!chat)
        return nyb_no_memory(err, "a chat", 1, sizeof(*chat));
    chat->tokenizer = tokenizer;
    nyb_status status = nyb_tokenizer_config_open(&config, folder, err);
    if (status == NYB_OK)
        status = open_template(chat, folder, &config, err);
    if (status == NYB_OK)
        status = set_tokens(chat, &config, err);
    nyb_tokenizer_config_close(&config);
    if (status == NYB_OK)
        *out = chat;
    else
        nyb_chat_close(chat);
    return status;
}

void nyb_chat_close(nyb_chat *chat)
{
    if (!chat)
        return;
    nyb_jinja_close(chat->jinja);
    json_decref(chat->variables);
    nyb_free(chat);
}

void nyb_conversation_clear(nyb_conversation *c)
{
    nyb_text_free(c->text);
    nyb_tokens_clear(&c->ids);
    nyb_tokens_clear(&c->assistant);
    *c = (nyb_conversation){0};
}

// ---- Conversations ------------------------------------------------------------------------

// {"from", "value"} as {"role", "content"}.
static json_t *other_message(const json_t *message)
{
    static const char *const roles[][2] = {
        {"human", "user"},          {"user", "user"},       {"gpt", "assistant"},
        {"assistant", "assistant"}, {"system", "system"},   {"tool", "tool"},
        {"chatgpt", "assistant"},   {"model", "assistant"},
    };
    const char *const from = json_string_value(json_object_get(message, "from"));
    json_t *const value = json_object_get(message, "value");
    for (size_t i = 0; from && value && i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(from, roles[i][0]) == 0)
            return json_pack("{s:s, s:O}", "role", roles[i][1], "content", value);
    return NULL;
}

// The list of messages, in a new reference.
static nyb_status read_messages(json_t **out, const json_t *value, nyb_err *err)
{
    json_t *const messages =
        json_is_array(value) ? (json_t *) (uintptr_t) value : json_object_get(value, "messages");
    const json_t *const others = json_object_get(value, "conversations");
    *out = json_array();
    size_t i;
    json_t *message;
    json_array_foreach(messages ? messages : others, i, message)
    {
        json_t *const made = messages ? NULL : other_message(message);
        if (messages ? !json_is_string(json_object_get(message, "role")) : !made)
            return nyb_fail(err, NYB_E_FORMAT,
                            "message %zu is none: it needs 'role' and 'content', or a known 'from' "
                            "and 'value'",
                            i);
        if (made ? json_array_append_new(*out, made) : json_array_append(*out, message))
            return nyb_no_memory(err, "messages", i, 1);
    }
    if (json_array_size(*out) == 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "there is no list 'messages' or 'conversations' with something in it");
    return NYB_OK;
}

static nyb_status render(const nyb_chat *chat, json_t *messages, json_t *tools, nyb_bytes *out,
                         nyb_ranges *generated, nyb_err *err)
{
    json_t *const variables = json_copy(chat->variables);
    nyb_status status = NYB_OK;
    nyb_bytes_reset(out);
    if (!variables || json_object_set(variables, "messages", messages) != 0 ||
        (tools && json_object_set(variables, "tools", tools) != 0))
        status = nyb_no_memory(err, "a conversation", 1, 1);
    if (status == NYB_OK)
        status = nyb_jinja_render(chat->jinja, variables, out, generated, err);
    json_decref(variables);
    return status;
}

// How many ids two lists begin with in common.
static size_t common_ids(const nyb_tokens *a, const nyb_tokens *b)
{
    size_t count = 0;
    while (count < a->count && count < b->count && a->at[count] == b->at[count])
        count++;
    return count;
}

// Tokens of c that lie in the first `length` bytes of its text.
static nyb_status tokens_before(const nyb_chat *chat, const nyb_conversation *c, size_t length,
                                size_t *out, nyb_err *err)
{
    nyb_tokens part = {0};
    const nyb_status status =
        nyb_tokenizer_encode(chat->tokenizer, c->text, length, false, &part, err);
    *out = common_ids(&c->ids, &part);
    nyb_tokens_clear(&part);
    return status;
}

static nyb_status mark(const nyb_chat *chat, nyb_conversation *c, size_t begin, size_t end,
                       bool with_special, nyb_err *err)
{
    size_t first = 0, behind = 0;
    nyb_status status = tokens_before(chat, c, begin, &first, err);
    if (status == NYB_OK)
        status = tokens_before(chat, c, end, &behind, err);
    if (status != NYB_OK)
        return status;
    if (with_special && behind < c->ids.count &&
        nyb_tokenizer_is_special(chat->tokenizer, c->ids.at[behind]))
        behind++;
    for (size_t i = first; i < behind; i++)
        c->assistant.at[i] = 1;
    return NYB_OK;
}

static bool inside_character(const nyb_conversation *c, size_t at)
{
    return at < c->length && ((unsigned char) c->text[at] & 0xc0) == 0x80;
}

// Marks what changes in the text when message i is another one.
static nyb_status mark_message(const nyb_chat *chat, nyb_conversation *c, json_t *messages,
                               json_t *tools, size_t i, nyb_err *err)
{
    static const char other[] = "\x01nybble\x01";
    nyb_bytes text = {0};
    json_t *const list = json_copy(messages);
    json_t *const message = json_copy(json_array_get(messages, i));
    nyb_status status = NYB_OK;
    if (!list || json_object_set_new(message, "content", json_string(other)) != 0 ||
        json_array_set_new(list, i, message) != 0)
        status = nyb_no_memory(err, "a conversation", 1, 1);
    if (status == NYB_OK)
        status = render(chat, list, tools, &text, NULL, err);
    json_decref(list);

    size_t begin = 0, back = 0;
    const size_t shorter = text.count < c->length ? text.count : c->length;
    while (begin < shorter && text.at[begin] == c->text[begin])
        begin++;
    while (back < shorter - begin &&
           text.at[text.count - 1 - back] == c->text[c->length - 1 - back])
        back++;
    nyb_bytes_clear(&text);
    size_t end = c->length - back;
    while (begin > 0 && inside_character(c, begin))
        begin--;
    while (end < c->length && inside_character(c, end))
        end++;
    return status == NYB_OK && begin < end ? mark(chat, c, begin, end, true, err) : status;
}

static nyb_status mark_assistant(const nyb_chat *chat, nyb_conversation *c, json_t *messages,
                                 json_t *tools, const nyb_ranges *generated, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < c->ids.count && status == NYB_OK; i++)
        status = nyb_tokens_add(&c->assistant, 0, err);
    for (size_t i = 0; i < generated->count && status == NYB_OK; i++)
        status = mark(chat, c, generated->at[i].begin, generated->at[i].end, false, err);
    if (generated->count > 0)
        return status;
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message)
    {
        const char *const role = json_string_value(json_object_get(message, "role"));
        if (status == NYB_OK && role && strcmp(role, "assistant") == 0 &&
            json_is_string(json_object_get(message, "content")))
            status = mark_message(chat, c, messages, tools, i, err);
    }
    return status;
}

static nyb_status read(const nyb_chat *chat, const json_t *value, nyb_conversation *out,
                       nyb_err *err)
{
    json_t *messages = NULL, *const tools = json_object_get(value, "tools");
    nyb_bytes text = {0};
    nyb_ranges generated = {0};
    nyb_status status = read_messages(&messages, value, err);
    if (status == NYB_OK)
        status = render(chat, messages, tools, &text, &generated, err);
    if (status == NYB_OK)
        status = nyb_ranges_status(&generated, err);
    nyb_bytes_add(&text, "", 1);
    if (status == NYB_OK)
        status = nyb_bytes_status(&text, err);
    if (status == NYB_OK) {
        out->text = text.at;
        out->length = text.count - 1;
        text = (nyb_bytes){0};
        status =
            nyb_tokenizer_encode(chat->tokenizer, out->text, out->length, false, &out->ids, err);
    }
    if (status == NYB_OK)
        status = mark_assistant(chat, out, messages, tools, &generated, err);
    nyb_bytes_clear(&text);
    nyb_ranges_clear(&generated);
    json_decref(messages);
    return status;
}

nyb_status nyb_chat_read(const nyb_chat *chat, const char *json, size_t length,
                         nyb_conversation *out, nyb_err *err)
{
    json_t *value = NULL;
    *out = (nyb_conversation){0};
    nyb_status status = nyb_json_parse(&value, json, length, "a conversation", err);
    if (status == NYB_OK)
        status = read(chat, value, out, err);
    json_decref(value);
    if (status != NYB_OK)
        nyb_conversation_clear(out);
    return status;
}
