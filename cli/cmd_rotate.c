#include <stdio.h>

#include "cli/making.h"
#include "nybble/rotate.h"

typedef struct options {
    nyb_making making;
    int format;
    size_t seed;
} options;

static const char *const formats[] = {"f32", "bf16", "f16", NULL};

static const options defaults = {.making = NYB_MAKING_DEFAULTS};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {
    NYB_MAKING_HEAD(options, making),
    {"seed", 's', NYB_OPTION_SIZE, INTO(seed), .value = "N", .about = "Of the rotation."},
    {"format", 'f', NYB_OPTION_CHOICE, INTO(format), .choices = formats, .value = "TYPE",
     .about = "Type of the matrices. f32 keeps the model as it was; bf16 rounds it once more."},
    NYB_MAKING_TAIL(options, making),
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_rotate_params params = {.model = call->operands[0],
                                      .out = o->making.output,
                                      .format = formats[o->format],
                                      .seed = o->seed,
                                      .shard_bytes = o->making.shard_size,
                                      .force = o->making.force,
                                      .command = call->line};
    nyb_rotate_result r;
    nyb_err err;
    if (nyb_rotate(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return nyb_call_answer(call, "{s:o?, s:I, s:b, s:I, s:I, s:f}", "output",
                               json_string(params.out), "layers", (json_int_t) r.layers, "untied",
                               r.untied, "bytes_in", (json_int_t) r.bytes_in, "bytes_out",
                               (json_int_t) r.bytes_out, "seconds", r.seconds);
    char before[32], after[32];
    (void) printf("%s: %zu matrices rotated%s, %s -> %s, %.1f s\n", params.out, r.layers,
                  r.untied ? ", the head has a tensor of its own" : "",
                  nyb_bytes_text(before, r.bytes_in), nyb_bytes_text(after, r.bytes_out),
                  r.seconds);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_rotate = {
    .name = "rotate",
    .about = "Rotates a model's residual stream, which takes outliers away before quantising",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples = (const nyb_example[]){{"nybble rotate llama -o llama-rotated",
                                       "The same model: its logits are the original's."},
                                      {"nybble quantize llama-rotated -o llama-4bit -c wiki.txt",
                                       "To be quantised like any other."},
                                      {0}},
    .notes =
        "MODEL is a Hugging Face folder in floats. Gains of norms are folded into the matrices "
        "that read them, and a random orthogonal matrix into all that read the residual stream or "
        "write "
        "to it; what comes out is an ordinary checkpoint of the same architecture. That needs "
        "norms that do not take the mean away, in front of attention and feed-forward part alone: "
        "Llama, Mistral, Qwen, Phi-3, DeepSeek, Gemma 1 and their like, not Gemma 2 and 3, GPT-2, "
        "OPT "
        "or Falcon.\n\n"
        "A head that shared its tensor with the embedding gets one of its own.",
    .run = run,
};
