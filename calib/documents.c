#include "calib/documents.h"

#include <jansson.h>
#include <string.h>

#include "core/file.h"
#include "nybble/chat.h"

enum { TEXT_LIMIT = 1 << 30 };

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

bool nyb_documents_named(const char *path, bool chat)
{
    return chat || ends_with(path, ".jsonl") || ends_with(path, ".ndjson");
}

// What is read so far.
typedef struct reading {
    const nyb_tokenizer *tokenizer;
    const nyb_samples_params *params;
    nyb_chat *chat; // NULL: texts
    nyb_tokens ids, marks, starts;
    nyb_err *err;
} reading;

static nyb_status add(reading *r, const nyb_tokens *ids, const nyb_tokens *marks)
{
    const int64_t end = r->chat ? -1 : nyb_tokenizer_eos(r->tokenizer);
    nyb_status status = nyb_tokens_add(&r->starts, (uint32_t) r->ids.count, r->err);
    for (size_t i = 0; i < ids->count && status == NYB_OK; i++) {
        status = nyb_tokens_add(&r->ids, ids->at[i], r->err);
        if (status == NYB_OK)
            status = nyb_tokens_add(&r->marks, marks ? marks->at[i] : 1, r->err);
    }
    if (status == NYB_OK && end >= 0)
        status = nyb_tokens_add(&r->ids, (uint32_t) end, r->err);
    if (status == NYB_OK && end >= 0)
        status = nyb_tokens_add(&r->marks, 1, r->err);
    return status;
}

static nyb_status read_conversation(reading *r, const char *text, size_t length)
{
    nyb_conversation c;
    nyb_status status = nyb_chat_read(r->chat, text, length, &c, r->err);
    const bool masked = r->params->loss_mask == NYB_LOSS_MASK_ASSISTANT;
    if (status == NYB_OK)
        status = add(r, &c.ids, masked ? &c.assistant : NULL);
    nyb_conversation_clear(&c);
    return status;
}

static nyb_status read_text(reading *r, const char *text, size_t length)
{
    const char *const field = r->params->text_field ? r->params->text_field : "text";
    json_t *value = NULL;
    nyb_tokens ids = {0};
    json_error_t fault = {0};
    value =
        json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &fault);
    nyb_status status =
        value ? NYB_OK
              : nyb_fail(r->err, NYB_E_FORMAT, "not JSON, column %d: %s", fault.column, fault.text);
    const json_t *const found = json_is_string(value) ? value : json_object_get(value, field);
    if (status == NYB_OK && !json_is_string(found))
        status = nyb_fail(r->err, NYB_E_FORMAT,
                          "it has no string '%.60s'; name the field with --text-field, or give "
                          "--chat for conversations",
                          field);
    if (status == NYB_OK)
        status = nyb_tokenizer_encode(r->tokenizer, json_string_value(found),
                                      json_string_length(found), false, &ids, r->err);
    if (status == NYB_OK)
        status = add(r, &ids, NULL);
    nyb_tokens_clear(&ids);
    json_decref(value);
    return status;
}

static nyb_status read_lines(reading *r, const char *path, const char *text, size_t length,
                             nyb_err *err)
{
    size_t line = 1;
    for (size_t at = 0; at < length; line++) {
        const char *const stop = memchr(text + at, '\n', length - at);
        const size_t end = stop ? (size_t) (stop - text) : length;
        size_t begin = at;
        while (begin < end && strchr(" \t\r", text[begin]) && text[begin])
            begin++;
        nyb_status status = NYB_OK;
        if (begin < end)
            status = r->chat ? read_conversation(r, text + begin, end - begin)
                             : read_text(r, text + begin, end - begin);
        if (status != NYB_OK)
            return nyb_fail(err, status, "%s, line %zu: %.800s", path, line, r->err->text);
        at = end + 1;
    }
    return NYB_OK;
}

// The lists in the stream's own memory.
static nyb_status keep(nyb_stream *out, const reading *r, nyb_err *err)
{
    const size_t count = r->ids.count, documents = r->starts.count;
    out->ids = nyb_arena_alloc(&out->arena, count + 1, sizeof(*out->ids));
    out->marks = nyb_arena_alloc(&out->arena, count + 1, 1);
    out->documents = nyb_arena_alloc(&out->arena, documents + 1, sizeof(*out->documents));
    if (!out->ids || !out->marks || !out->documents)
        return nyb_no_memory(err, out->path, count, sizeof(*out->ids));
    for (size_t i = 0; i < count; i++) {
        out->ids[i] = r->ids.at[i];
        out->marks[i] = (unsigned char) r->marks.at[i];
    }
    for (size_t i = 0; i < documents; i++)
        out->documents[i] = r->starts.at[i];
    out->documents[documents] = count;
    out->count = count;
    out->document_count = documents;
    return NYB_OK;
}

nyb_status nyb_documents_read(nyb_stream *out, const nyb_tokenizer *tokenizer, const char *folder,
                              const nyb_samples_params *params, nyb_err *err)
{
    nyb_err inner = {0};
    reading r = {.tokenizer = tokenizer, .params = params, .err = &inner};
    nyb_arena scratch = {0};
    char *text = NULL;
    size_t length = 0;
    nyb_status status = nyb_file_read(&scratch, out->path, TEXT_LIMIT, &text, &length, err);
    if (status == NYB_OK && params->chat)
        status = nyb_chat_open(&r.chat, folder, tokenizer, err);
    if (status == NYB_OK)
        status = read_lines(&r, out->path, text, length, err);
    if (status == NYB_OK)
        status = keep(out, &r, err);
    nyb_chat_close(r.chat);
    nyb_tokens_clear(&r.ids);
    nyb_tokens_clear(&r.marks);
    nyb_tokens_clear(&r.starts);
    nyb_arena_clear(&scratch);
    return status;
}
