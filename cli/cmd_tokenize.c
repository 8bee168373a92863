#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "nybble/chat.h"
#include "nybble/npy.h"
#include "nybble/tokenizer.h"

typedef struct options {
    const char *text, *output;
    bool decode, special, list, count, pieces, chat, frequencies;
    nyb_spm_rules rules;
} options;

// In the order of nyb_spm_rules.
static const char *const rules[] = {"transformers", "sentencepiece", NULL};

static const options defaults = {.special = true};

static const nyb_option table[] = {
    {"text", 't', NYB_OPTION_TEXT, NYB_INTO(options, text), .value = "TEXT",
     .about = "The text itself, instead of a file."},
    {"decode", 'd', NYB_OPTION_FLAG, NYB_INTO(options, decode),
     .about = "Turn ids into text: whole numbers parted by white space or commas, or a JSON list."},
    {"special", 0, NYB_OPTION_SWITCH, NYB_INTO(options, special),
     .about = "Add what the tokenizer puts around a text (begin-of-text and the like); with "
              "--decode: keep special tokens."},
    {"list", 0, NYB_OPTION_FLAG, NYB_INTO(options, list),
     .about = "The input is a JSON list of texts, each of which is tokenized by itself; with "
              "--decode: a list of lists of ids."},
    {"chat", 0, NYB_OPTION_FLAG, NYB_INTO(options, chat),
     .about = "The input is JSON lines, each of which is a conversation ({\"messages\": "
              "[{\"role\": ..., \"content\": ...}, ...]}) that goes through the model's chat "
              "template."},
    {"output", 'o', NYB_OPTION_PATH, NYB_INTO(options, output), .value = "FILE.npy",
     .about = "Write the ids to an array file, int32 [ids], instead of printing them."},
    {"count", 'c', NYB_OPTION_FLAG, NYB_INTO(options, count), .about = "Print only how many."},
    {"pieces", 'p', NYB_OPTION_FLAG, NYB_INTO(options, pieces),
     .about = "Print a table of each id and its token as the vocabulary spells it."},
    {"frequencies", 0, NYB_OPTION_FLAG, NYB_INTO(options, frequencies),
     .about = "Print a table of how often each token comes, the most frequent ones first."},
    {"rules", 0, NYB_OPTION_CHOICE, NYB_INTO(options, rules), .choices = rules,
     .about = "How a tokenizer.model without a tokenizer.json is read: as transformers does, or "
              "with the spaces and control tokens of the sentencepiece library."},
    {0}};

// What a call works on. With --json results are collected, else each is printed when it is there.
typedef struct work {
    const nyb_call *call;
    nyb_tokenizer *tokenizer;
    nyb_chat *chat;                                    // --chat
    nyb_tokens all;                                    // --frequencies: every id
    json_t *counts, *ids, *pieces, *texts, *assistant; // an entry each, by input
} work;

static nyb_exit fail(const nyb_call *call, nyb_status status, const char *what, const char *why)
{
    nyb_err err = {.status = status};
    (void) snprintf(err.text, sizeof(err.text), "%.500s: %.500s", what, why);
    return nyb_call_fail(call, &err);
}

// What errors call the input.
static const char *input_name(const nyb_call *call)
{
    const options *const o = call->options;
    const bool is_file = call->operand_count > 1 && strcmp(call->operands[1], "-") != 0;
    return o->text ? "--text" : is_file ? call->operands[1] : "standard input";
}

static void print_pieces(const work *w, const nyb_tokens *ids)
{
    static const nyb_column columns[] = {{"id", true}, {"token", false}};
    nyb_table lines = nyb_table_new(columns, 2);
    for (size_t i = 0; i < ids->count; i++) {
        const char *const text = nyb_tokenizer_text(w->tokenizer, ids->at[i], NULL);
        nyb_table_cell(&lines, "%" PRIu32, ids->at[i]);
        nyb_table_cell(&lines, "%s", text ? text : "");
    }
    nyb_table_print(&lines);
}

static void print_ids(const nyb_tokens *ids)
{
    for (size_t i = 0; i < ids->count; i++)
        (void) printf("%s%" PRIu32, i ? " " : "", ids->at[i]);
    (void) putchar('\n');
}

static void collect(work *w, const nyb_tokens *ids, const char *text, size_t length)
{
    json_t *const numbers = json_array();
    json_t *const pieces = json_array();
    for (size_t i = 0; i < ids->count; i++) {
        size_t bytes = 0;
        const char *const piece = nyb_tokenizer_text(w->tokenizer, ids->at[i], &bytes);
        json_array_append_new(numbers, json_integer(ids->at[i]));
        json_array_append_new(pieces, piece ? json_stringn(piece, bytes) : json_null());
    }
    json_array_append_new(w->counts, json_integer((json_int_t) ids->count));
    json_array_append_new(w->ids, numbers);
    json_array_append_new(w->pieces, pieces);
    if (text)
        json_array_append_new(w->texts, json_stringn(text, length));
}

static nyb_exit save(const work *w, const nyb_tokens *ids)
{
    const options *const o = w->call->options;
    nyb_err err;
    const nyb_tensor array = {.name = "ids",
                              .dtype = NYB_I32, // ids are below 2^22
                              .rank = 1,
                              .shape = {ids->count},
                              .at = ids->at,
                              .bytes = ids->count * sizeof(*ids->at)};
    return nyb_npy_save(o->output, &array, &err) == NYB_OK ? NYB_EXIT_OK
                                                           : nyb_call_fail(w->call, &err);
}

static nyb_exit remember(work *w, const nyb_tokens *ids)
{
    nyb_err err;
    for (size_t i = 0; i < ids->count; i++)
        if (nyb_tokens_add(&w->all, ids->at[i], &err) != NYB_OK)
            return nyb_call_fail(w->call, &err);
    return NYB_EXIT_OK;
}

// Hands out one result; `text` is NULL unless it was decoded.
static nyb_exit hand_out(work *w, const nyb_tokens *ids, const char *text, size_t length)
{
    const options *const o = w->call->options;
    if (o->frequencies)
        return remember(w, ids);
    if (w->call->json)
        collect(w, ids, text, length);
    if (o->output)
        return save(w, ids);
    if (w->call->json)
        return NYB_EXIT_OK;

    if (o->count) {
        (void) printf("%zu\n", ids->count);
    } else if (o->pieces) {
        print_pieces(w, ids);
    } else if (text && !o->chat) {
        (void) fwrite(text, 1, length, stdout);
        (void) fputs(o->list ? "\n" : "", stdout);
    } else {
        print_ids(ids);
    }
    return NYB_EXIT_OK;
}

static nyb_exit encode(work *w, const char *text, size_t length)
{
    const options *const o = w->call->options;
    nyb_tokens ids = {0};
    nyb_err err;
    if (nyb_tokenizer_encode(w->tokenizer, text, length, o->special, &ids, &err) != NYB_OK)
        return fail(w->call, err.status, input_name(w->call), err.text);
    const nyb_exit code = hand_out(w, &ids, NULL, 0);
    nyb_tokens_clear(&ids);
    return code;
}

static nyb_exit decode(work *w, const nyb_tokens *ids)
{
    const options *const o = w->call->options;
    char *text = NULL;
    size_t length = 0;
    nyb_err err;
    if (nyb_tokenizer_decode(w->tokenizer, ids->at, ids->count, !o->special, &text, &length,
                             &err) != NYB_OK)
        return nyb_call_fail(w->call, &err);
    const nyb_exit code = hand_out(w, ids, text, length);
    nyb_text_free(text);
    return code;
}

static bool add_id(nyb_tokens *ids, json_int_t id, nyb_err *err)
{
    err->status = NYB_E_ARG;
    (void) snprintf(err->text, sizeof(err->text), "%" JSON_INTEGER_FORMAT " is no token id", id);
    return id >= 0 && id <= UINT32_MAX && nyb_tokens_add(ids, (uint32_t) id, err) == NYB_OK;
}

static bool add_json_ids(nyb_tokens *ids, const json_t *list, nyb_err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *const id = json_array_get(list, i);
        if (!add_id(ids, json_is_integer(id) ? json_integer_value(id) : -1, err))
            return false;
    }
    return json_is_array(list);
}

static bool add_plain_ids(nyb_tokens *ids, const char *text, nyb_err *err)
{
    static const char gaps[] = " \t\r\n,";
    for (text += strspn(text, gaps); *text; text += strspn(text, gaps)) {
        char *end = NULL;
        errno = 0;
        const long long id = strtoll(text, &end, 10);
        if (end == text || errno || (*end && !strchr(gaps, *end))) {
            (void) snprintf(err->text, sizeof(err->text), "'%.40s' is no token id", text);
            err->status = NYB_E_FORMAT;
            return false;
        }
        if (!add_id(ids, id, err))
            return false;
        text = end;
    }
    return true;
}

static nyb_exit run_single(work *w, const char *text, size_t length)
{
    const options *const o = w->call->options;
    nyb_err err = {.status = NYB_E_FORMAT, .text = "this is no list of ids"};
    nyb_tokens ids = {0};
    bool read = false;
    if (!o->decode)
        return encode(w, text, length);
    if (text[strspn(text, " \t\r\n")] == '[') {
        json_t *const list = json_loadb(text, length, 0, NULL);
        read = add_json_ids(&ids, list, &err);
        json_decref(list);
    } else {
        read = add_plain_ids(&ids, text, &err);
    }
    const nyb_exit code =
        read ? decode(w, &ids) : fail(w->call, err.status, input_name(w->call), err.text);
    nyb_tokens_clear(&ids);
    return code;
}

static nyb_exit run_item(work *w, const json_t *item)
{
    const options *const o = w->call->options;
    nyb_err err = {.status = NYB_E_FORMAT, .text = "this is no list of lists of ids"};
    nyb_tokens ids = {0};
    nyb_exit code = NYB_EXIT_OK;
    if (!o->decode && json_is_string(item))
        return encode(w, json_string_value(item), json_string_length(item));
    if (!o->decode)
        return fail(w->call, NYB_E_FORMAT, input_name(w->call), "this is no list of texts");
    if (add_json_ids(&ids, item, &err))
        code = decode(w, &ids);
    else
        code = fail(w->call, err.status, input_name(w->call), err.text);
    nyb_tokens_clear(&ids);
    return code;
}

static nyb_exit run_list(work *w, const char *text, size_t length)
{
    json_error_t fault = {0};
    json_t *const list = json_loadb(text, length, JSON_ALLOW_NUL, &fault);
    nyb_exit code = NYB_EXIT_OK;
    if (!json_is_array(list))
        code = fail(w->call, NYB_E_FORMAT, input_name(w->call),
                    list ? "the JSON is no list" : fault.text);
    for (size_t i = 0; i < json_array_size(list) && code == NYB_EXIT_OK; i++)
        code = run_item(w, json_array_get(list, i));
    json_decref(list);
    return code;
}

static nyb_exit run_conversation(work *w, size_t line, const char *text, size_t length)
{
    nyb_conversation c;
    nyb_err err;
    if (nyb_chat_read(w->chat, text, length, &c, &err) != NYB_OK) {
        char name[600];
        (void) snprintf(name, sizeof(name), "%.500s, line %zu", input_name(w->call), line);
        return fail(w->call, err.status, name, err.text);
    }
    const nyb_exit code = hand_out(w, &c.ids, c.text, c.length);
    if (w->call->json) {
        json_t *const marks = json_array();
        for (size_t i = 0; i < c.assistant.count; i++)
            json_array_append_new(marks, json_integer(c.assistant.at[i]));
        json_array_append_new(w->assistant, marks);
    }
    nyb_conversation_clear(&c);
    return code;
}

// One conversation a line; empty lines are none.
static nyb_exit run_chat(work *w, const char *text, size_t length)
{
    nyb_exit code = NYB_EXIT_OK;
    size_t line = 1;
    for (size_t at = 0; at < length && code == NYB_EXIT_OK; line++) {
        const char *const stop = memchr(text + at, '\n', length - at);
        const size_t end = stop ? (size_t) (stop - text) : length;
        size_t begin = at;
        while (begin < end && strchr(" \t\r", text[begin]))
            begin++;
        if (begin < end)
            code = run_conversation(w, line, text + begin, end - begin);
        at = end + 1;
    }
    return code;
}

static int by_id(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;
    return x < y ? -1 : x > y;
}

// Pairs of a count and an id.
static int by_count(const void *a, const void *b)
{
    const uint32_t *const x = a, *const y = b;
    if (x[0] != y[0])
        return x[0] < y[0] ? 1 : -1;
    return x[1] < y[1] ? -1 : x[1] > y[1];
}

static void print_frequencies(const work *w, const uint32_t *pairs, size_t distinct)
{
    static const nyb_column columns[] = {
        {"id", true}, {"token", false}, {"count", true}, {"share", true}};
    nyb_table lines = nyb_table_new(columns, 4);
    for (size_t i = 0; i < distinct; i++) {
        const char *const text = nyb_tokenizer_text(w->tokenizer, pairs[2 * i + 1], NULL);
        nyb_table_cell(&lines, "%" PRIu32, pairs[2 * i + 1]);
        nyb_table_cell(&lines, "%s", text ? text : "");
        nyb_table_cell(&lines, "%" PRIu32, pairs[2 * i]);
        nyb_table_cell(&lines, "%.4f", (double) pairs[2 * i] / (double) w->all.count);
    }
    nyb_table_print(&lines);
}

static void print_frequencies_json(const work *w, const uint32_t *pairs, size_t distinct)
{
    json_t *const doc = nyb_call_document(w->call);
    json_t *const list = json_array();
    for (size_t i = 0; i < distinct; i++)
        json_array_append_new(list, json_pack("{s:I, s:I}", "id", (json_int_t) pairs[2 * i + 1],
                                              "count", (json_int_t) pairs[2 * i]));
    json_object_set_new(doc, "vocabulary",
                        json_integer((json_int_t) nyb_tokenizer_size(w->tokenizer)));
    json_object_set_new(doc, "count", json_integer((json_int_t) w->all.count));
    json_object_set_new(doc, "distinct", json_integer((json_int_t) distinct));
    json_object_set_new(doc, "frequencies", list);
    nyb_call_print_json(w->call, doc);
}

static nyb_exit finish_frequencies(work *w)
{
    nyb_tokens pairs = {0};
    nyb_err err;
    bool fine = true;
    if (w->all.count > 0)
        qsort(w->all.at, w->all.count, sizeof(*w->all.at), by_id);
    for (size_t i = 0, end = 0; i < w->all.count && fine; i = end) {
        while (end < w->all.count && w->all.at[end] == w->all.at[i])
            end++;
        fine = nyb_tokens_add(&pairs, (uint32_t) (end - i), &err) == NYB_OK &&
               nyb_tokens_add(&pairs, w->all.at[i], &err) == NYB_OK;
    }
    if (fine && pairs.count > 0)
        qsort(pairs.at, pairs.count / 2, 2 * sizeof(*pairs.at), by_count);
    if (fine && w->call->json)
        print_frequencies_json(w, pairs.at, pairs.count / 2);
    else if (fine)
        print_frequencies(w, pairs.at, pairs.count / 2);
    nyb_tokens_clear(&pairs);
    return fine ? NYB_EXIT_OK : nyb_call_fail(w->call, &err);
}

// Sets the only entry, or with --list all of them. Takes the list.
static void set_values(const work *w, json_t *doc, const char *key, json_t *list, bool wanted)
{
    const options *const o = w->call->options;
    if (wanted)
        json_object_set(doc, key, o->list || o->chat ? list : json_array_get(list, 0));
    json_decref(list);
}

static void print_json(const work *w, bool done)
{
    const options *const o = w->call->options;
    json_t *const doc = nyb_call_document(w->call);
    json_object_set_new(doc, "tokenizer", json_string(nyb_tokenizer_kind(w->tokenizer)));
    json_object_set_new(doc, "vocabulary",
                        json_integer((json_int_t) nyb_tokenizer_size(w->tokenizer)));
    set_values(w, doc, "count", w->counts, true);
    set_values(w, doc, "ids", w->ids, !o->decode && !o->count && !o->output);
    set_values(w, doc, "pieces", w->pieces, o->pieces);
    set_values(w, doc, "text", w->texts, (o->decode || o->chat) && !o->count);
    set_values(w, doc, "assistant", w->assistant, o->chat && !o->count);
    if (done)
        nyb_call_print_json(w->call, doc);
    else
        json_decref(doc);
}

static nyb_exit run_opened(work *w)
{
    const nyb_call *const call = w->call;
    const options *const o = call->options;
    char *text = NULL;
    size_t length = 0;
    nyb_err err;
    const char *const path = call->operand_count > 1 ? call->operands[1] : "-";
    if (!o->text && nyb_text_read(&text, &length, path, &err) != NYB_OK)
        return nyb_call_fail(call, &err);

    const char *const used = o->text ? o->text : text;
    const size_t used_length = o->text ? strlen(o->text) : length;
    if (call->json) {
        w->counts = json_array();
        w->ids = json_array();
        w->pieces = json_array();
        w->texts = json_array();
        w->assistant = json_array();
    }
    const nyb_exit code = o->chat   ? run_chat(w, used, used_length)
                          : o->list ? run_list(w, used, used_length)
                                    : run_single(w, used, used_length);
    if (call->json)
        print_json(w, code == NYB_EXIT_OK && !o->frequencies);
    nyb_text_free(text);
    return code == NYB_EXIT_OK && o->frequencies ? finish_frequencies(w) : code;
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_tokenizer_params params = {.spm_rules = o->rules};
    work w = {.call = call};
    nyb_err err;
    if (o->text && call->operand_count > 1)
        return nyb_call_usage(call, "--text and a file exclude each other");
    if (o->output && (o->decode || o->list || o->count || o->pieces || o->chat))
        return nyb_call_usage(call,
                              "--output excludes --decode, --list, --chat, --count and --pieces");
    if (o->frequencies && (o->decode || o->output || o->count || o->pieces))
        return nyb_call_usage(call,
                              "--frequencies excludes --decode, --output, --count and --pieces");
    if (o->chat && (o->decode || o->list))
        return nyb_call_usage(call, "--chat excludes --decode and --list");
    if (nyb_tokenizer_open(&w.tokenizer, call->operands[0], &params, &err) != NYB_OK)
        return nyb_call_fail(call, &err);

    const bool ready =
        !o->chat || nyb_chat_open(&w.chat, call->operands[0], w.tokenizer, &err) == NYB_OK;
    const nyb_exit code = ready ? run_opened(&w) : nyb_call_fail(call, &err);
    nyb_chat_close(w.chat);
    nyb_tokenizer_close(w.tokenizer);
    nyb_tokens_clear(&w.all);
    return code;
}

const nyb_command nyb_command_tokenize = {
    .name = "tokenize",
    .about = "Turns text into token ids, or ids into text",
    .operands = "MODEL [FILE]",
    .operand_min = 1,
    .operand_max = 2,
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples = (const nyb_example[]){{"nybble tokenize model notes.txt -o ids.npy",
                                       "The ids of a text file, for calibration or evaluation."},
                                      {"nybble tokenize model --text 'Once upon a time' --pieces",
                                       "How a sentence is cut into tokens."},
                                      {"echo '1 403 407' | nybble tokenize model --decode",
                                       "The text of three ids."},
                                      {0}},
    .notes = "MODEL is a checkpoint folder with a tokenizer.json (preferred), a tokenizer.model, a "
             "vocab.json with its merges.txt, or a vocab.txt. "
             "FILE is UTF-8; without it, or with '-', standard input is read, to its last byte: a "
             "newline at the end is part of the text.",
    .run = run,
};
