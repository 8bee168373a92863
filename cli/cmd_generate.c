#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "nybble/generate.h"
#include "nybble/tokenizer.h"

typedef struct options {
    const char *prompt, *tokens;
    size_t max_tokens, top_k, seed;
    double temperature, top_p;
    bool ignore_eos;
} options;

static const options defaults = {.max_tokens = 128, .top_p = 1.0};

static const nyb_option table[] = {
    {"prompt", 'p', NYB_OPTION_TEXT, NYB_INTO(options, prompt), .value = "TEXT",
     .about = "The text to continue."},
    {"tokens", 0, NYB_OPTION_PATH, NYB_INTO(options, tokens), .value = "FILE",
     .about = "Token ids to continue instead of a text: a .npy file of integers or a JSON list."},
    {"max-tokens", 'n', NYB_OPTION_SIZE, NYB_INTO(options, max_tokens), .value = "N",
     .about = "New tokens at most.", .min = 1, .max = 1 << 24},
    {"temperature", 't', NYB_OPTION_REAL, NYB_INTO(options, temperature), .value = "X",
     .about = "0 always takes the most probable token; above it tokens are drawn from the "
              "probabilities at this temperature.",
     .min = 0, .max = 1e6},
    {"top-k", 0, NYB_OPTION_SIZE, NYB_INTO(options, top_k), .value = "N",
     .about = "Draw from the N most probable tokens only; 0 means from all."},
    {"top-p", 0, NYB_OPTION_REAL, NYB_INTO(options, top_p), .value = "X",
     .about = "Draw from the fewest tokens whose probabilities reach X together.", .min = 1e-9,
     .max = 1},
    {"seed", 0, NYB_OPTION_SIZE, NYB_INTO(options, seed), .value = "N",
     .about = "Start of the random numbers; the same seed draws the same tokens."},
    {"ignore-eos", 0, NYB_OPTION_FLAG, NYB_INTO(options, ignore_eos),
     .about = "Go on where the model ends the text."},
    {0}};

// What a run carries along. Text is printed as soon as it is whole.
typedef struct speech {
    const nyb_call *call;
    nyb_generator *generator;
    nyb_tokenizer *tokenizer; // NULL: ids in, ids out
    nyb_tokens tokens;        // the prompt's, then the new ones
    size_t prompt_count;
    size_t printed; // bytes of the text of all tokens so far, the prompt's included
    nyb_err err;    // of a callback
    nyb_status status;
} speech;

// A character that is cut in two at the end of the text would come out as U+FFFD.
static size_t whole_bytes(const char *text, size_t length)
{
    static const char cut[] = "\xEF\xBF\xBD";
    while (length >= 3 && memcmp(text + length - 3, cut, 3) == 0)
        length -= 3;
    return length;
}

// The new tokens' text is what comes behind the prompt's: decoded on their own they could lose
// the space in front.
static nyb_status decode(speech *s, size_t count, char **text, size_t *length, nyb_err *err)
{
    return nyb_tokenizer_decode(s->tokenizer, s->tokens.at, count, true, text, length, err);
}

static nyb_status print_text(speech *s, bool last, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    const nyb_status status = decode(s, s->tokens.count, &text, &length, err);
    if (status != NYB_OK)
        return status;
    const size_t end = last ? length : whole_bytes(text, length);
    if (end > s->printed) {
        (void) fwrite(text + s->printed, 1, end - s->printed, stdout);
        (void) fflush(stdout);
        s->printed = end;
    }
    nyb_text_free(text);
    return NYB_OK;
}

static bool on_token(void *user, uint32_t id)
{
    speech *const s = user;
    s->status = nyb_tokens_add(&s->tokens, id, &s->err);
    if (s->status != NYB_OK || s->call->json)
        return s->status == NYB_OK;
    if (s->tokenizer)
        s->status = print_text(s, false, &s->err);
    else
        (void) printf("%s%u", s->tokens.count > s->prompt_count + 1 ? " " : "", id);
    return s->status == NYB_OK;
}

static json_t *ids_of(const uint32_t *ids, size_t count)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer((json_int_t) ids[i]));
    return list;
}

// Tokens per second. The first new token comes out of the prompt.
static double prompt_rate(const nyb_generate_result *result)
{
    return 1e3 * (double) result->prompt_tokens / result->prompt_ms;
}

static double new_rate(const nyb_generate_result *result)
{
    return 1e3 * (double) (result->new_tokens - 1) / result->new_ms;
}

static void print_rate(const nyb_call *call, const nyb_generate_result *result)
{
    if (!call->quiet && (call->verbose || isatty(STDERR_FILENO)))
        (void) fprintf(
            stderr, "nybble: prompt of %zu tokens at %.1f tokens/s, %zu new ones at %.1f\n",
            result->prompt_tokens, prompt_rate(result), result->new_tokens, new_rate(result));
}

static nyb_status print_result(speech *s, const nyb_generate_result *result, nyb_err *err)
{
    static const char *const stops[] = {"length", "eos", "caller"};
    json_t *const doc = nyb_call_document(s->call);
    if (s->tokenizer) {
        char *text = NULL;
        size_t length = 0;
        const nyb_status status = decode(s, s->tokens.count, &text, &length, err);
        if (status != NYB_OK) {
            json_decref(doc);
            return status;
        }
        const size_t from = s->printed < length ? s->printed : length;
        json_object_set_new(doc, "text", json_stringn(text + from, length - from));
        nyb_text_free(text);
    }
    json_object_set_new(doc, "prompt_ids", ids_of(s->tokens.at, s->prompt_count));
    json_object_set_new(doc, "ids",
                        ids_of(s->tokens.at + s->prompt_count, s->tokens.count - s->prompt_count));
    json_object_set_new(doc, "stop", json_string(stops[result->stop]));
    json_object_set_new(doc, "prompt_ms", nyb_json_finite(result->prompt_ms));
    json_object_set_new(doc, "new_ms", nyb_json_finite(result->new_ms));
    json_object_set_new(doc, "prompt_tokens_per_second", nyb_json_finite(prompt_rate(result)));
    json_object_set_new(doc, "tokens_per_second", nyb_json_finite(new_rate(result)));
    nyb_call_print_json(s->call, doc);
    return NYB_OK;
}

static nyb_status read_ids(speech *s, const char *path, nyb_err *err)
{
    const uint32_t *ids = NULL;
    size_t count = 0;
    nyb_status status = nyb_generator_prompt(s->generator, path, &ids, &count, err);
    for (size_t i = 0; status == NYB_OK && i < count; i++)
        status = nyb_tokens_add(&s->tokens, ids[i], err);
    return status;
}

static nyb_status read_text(speech *s, const char *prompt, nyb_err *err)
{
    char *text = NULL;
    nyb_status status = nyb_tokenizer_open(&s->tokenizer, s->call->operands[0], NULL, err);
    if (status == NYB_OK)
        status = nyb_tokenizer_encode(s->tokenizer, prompt, strlen(prompt), true, &s->tokens, err);
    if (status == NYB_OK)
        status = decode(s, s->tokens.count, &text, &s->printed, err);
    nyb_text_free(text);
    return status;
}

static nyb_status speak(speech *s, const options *o, nyb_err *err)
{
    const nyb_generate_params params = {
        .max_tokens = o->max_tokens,
        .temperature = o->temperature,
        .top_k = o->top_k,
        .top_p = o->top_p,
        .seed = o->seed,
        .ignore_eos = o->ignore_eos,
    };
    nyb_generate_result result;
    nyb_status status =
        nyb_generator_open(&s->generator, &s->call->context, s->call->operands[0], err);
    if (status == NYB_OK)
        status = o->tokens ? read_ids(s, o->tokens, err) : read_text(s, o->prompt, err);
    s->prompt_count = s->tokens.count;
    if (status == NYB_OK && !s->call->json && !s->call->quiet && o->prompt)
        (void) printf("%s", o->prompt);
    if (status == NYB_OK)
        status = nyb_generate(s->generator, s->tokens.at, s->prompt_count, &params, on_token, s,
                              &result, err);
    if (status == NYB_OK && s->status != NYB_OK) {
        *err = s->err;
        return s->status;
    }
    if (status != NYB_OK)
        return status;
    if (s->call->json)
        return print_result(s, &result, err);
    if (s->tokenizer)
        status = print_text(s, true, err);
    (void) printf("\n");
    (void) fflush(stdout);
    print_rate(s->call, &result);
    return status;
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    speech s = {.call = call};
    nyb_err err;
    if (!o->prompt == !o->tokens)
        return nyb_call_usage(call, o->prompt ? "--prompt and --tokens exclude each other"
                                              : "give --prompt or --tokens");
    const nyb_status status = speak(&s, o, &err);
    nyb_tokens_clear(&s.tokens);
    nyb_tokenizer_close(s.tokenizer);
    nyb_generator_close(s.generator);
    return status == NYB_OK ? NYB_EXIT_OK : nyb_call_fail(call, &err);
}

const nyb_command nyb_command_generate = {
    .name = "generate",
    .about = "Continues a text with a model",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .memory = true,
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble generate model --prompt \"Once upon a time\"", "The most probable text."},
            {"nybble generate model --prompt \"Once\" --temperature 0.8 --top-p 0.9 --seed 7",
             "A drawn one; another seed gives another."},
            {0}},
    .notes = "The continuation goes to standard output as it is made, after the prompt. With "
             "--tokens the new ids are printed instead, separated by spaces.",
    .run = run,
};
