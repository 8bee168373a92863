#include <stdio.h>

#include "cli/command.h"
#include "nybble/rotate.h"

typedef struct options {
    const char *output;
    int format;
    size_t seed;
    uint64_t shard_size;
    bool force;
} options;

static const char *const formats[] = {"f32", "bf16", "f16", NULL};

static const options defaults = {.shard_size = 5000000000};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FOLDER", .required = true,
     .about = "Folder to write; it appears when it is complete."},
    {"seed", 's', NYB_OPTION_SIZE, INTO(seed), .value = "N", .about = "Of the rotation."},
    {"format", 'f', NYB_OPTION_CHOICE, INTO(format), .choices = formats, .value = "TYPE",
     .about = "Type of the matrices. f32 keeps the model as it was; bf16 rounds it once more."},
    {"shard-size", 0, NYB_OPTION_BYTES, INTO(shard_size), .value = "BYTES",
     .about = "Largest tensor file."},
    {"force", 0, NYB_OPTION_FLAG, INTO(force),
     .about = "Replace a folder that nybble made before."},
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_rotate_params params = {.model = call->operands[0],
                                      .out = o->output,
                                      .format = formats[o->format],
                                      .seed = o->seed,
                                      .shard_bytes = o->shard_size,
                                      .force = o->force};
    nyb_rotate_result r;
    nyb_err err;
    if (nyb_rotate(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json) {
        json_t *const doc = nyb_call_document(call);
        json_object_set_new(doc, "output", json_string(params.out));
        json_object_set_new(doc, "layers", json_integer((json_int_t) r.layers));
        json_object_set_new(doc, "untied", json_boolean(r.untied));
        json_object_set_new(doc, "bytes_in", json_integer((json_int_t) r.bytes_in));
        json_object_set_new(doc, "bytes_out", json_integer((json_int_t) r.bytes_out));
        json_object_set_new(doc, "seconds", json_real(r.seconds));
        nyb_call_print_json(call, doc);
        return NYB_EXIT_OK;
    }
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
    .operands = "MODEL",
    .operand_min = 1,
    .operand_max = 1,
    .options = table,
    .options_size = sizeof(options),
    .defaults = &defaults,
    .examples = (const nyb_example[]){{"nybble rotate llama -o llama-rotated",
                                       "The same model: its logits are the original's."},
                                      {"nybble quantize llama-rotated -o llama-4bit -c wiki.txt",
                                       "To be quantised like any other."},
                                      {0}},
    .notes =
        "MODEL is a Hugging Face folder in floats. Gains of norms are folded into the matrices "
        "that "
        "read them, and a random orthogonal matrix into all that read the residual stream or write "
        "to it; what comes out is an ordinary checkpoint of the same architecture. That needs "
        "norms that do not take the mean away, in front of attention and feed-forward part alone: "
        "Llama, Mistral, Qwen, Phi-3, DeepSeek, Gemma 1 and their like, not Gemma 2 and 3, GPT-2, "
        "OPT "
        "or Falcon.\n\n"
        "A head that shared its tensor with the embedding gets one of its own.",
    .run = run,
};
