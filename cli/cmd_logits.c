#include <stdio.h>

#include "cli/command.h"
#include "nybble/logits.h"

typedef struct options {
    const char *tokens, *output;
} options;

static const options defaults = {0};

static const nyb_option table[] = {
    {"tokens", 0, NYB_OPTION_PATH, NYB_INTO(options, tokens), .value = "FILE",
     .about = "Token ids: a .npy file of integers, [length] or [samples, length], or JSON with the "
              "same lists.",
     .required = true},
    {"output", 'o', NYB_OPTION_PATH, NYB_INTO(options, output), .value = "FILE",
     .about = "The .npy file to write.", .required = true},
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    nyb_logits_result result;
    nyb_err err;
    if (nyb_logits(&call->context, call->operands[0], o->tokens, o->output, &result, &err) !=
        NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return nyb_call_answer(call, "{s:o?, s:I, s:I, s:I}", "output", json_string(o->output),
                               "samples", (json_int_t) result.samples, "length",
                               (json_int_t) result.length, "vocab", (json_int_t) result.vocab);
    if (!call->quiet)
        (void) printf("%s: f32 [%zu, %zu, %zu]\n", o->output, result.samples, result.length,
                      result.vocab);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_logits = {
    .name = "logits",
    .about = "Writes a model's scores for every position of given token ids",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .memory = true,
    .compute = true,
    .examples = (const nyb_example[]){{"nybble logits model --tokens ids.npy -o logits.npy",
                                       "f32 scores, [samples, length, vocabulary]."},
                                      {0}},
    .notes = "Each row of the ids is a text of its own and starts at position 0. Row t of the "
             "result holds the scores for the token after position t, before any softmax. All "
             "arithmetic is f32, whatever type the checkpoint stores, unless --compute is bf16.",
    .run = run,
};
