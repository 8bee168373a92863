#include <stdio.h>

#include "cli/command.h"
#include "nybble/convert.h"

typedef struct options {
    const char *output;
    int format;
    uint64_t shard_size;
    bool force;
} options;

static const char *const formats[] = {
    "bf16", "f16", "f32", "compressed-tensors", "gptq", "gptq_v2", "awq", "fp8", "keras", NULL};

static const options defaults = {.shard_size = 5000000000};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FOLDER", .required = true,
     .about = "Folder to write; it appears when it is complete."},
    {"format", 'f', NYB_OPTION_CHOICE, INTO(format), .choices = formats, .value = "FORMAT",
     .required = true,
     .about =
         "bf16, f16, f32: weights as floats. keras: a KerasHub preset with the very floats of a "
         "folder. The others: the same codes and scales in another layout, with not a bit of a "
         "weight changed; what a layout cannot hold is refused."},
    {"shard-size", 0, NYB_OPTION_BYTES, INTO(shard_size), .value = "BYTES",
     .about = "Largest tensor file."},
    {"force", 0, NYB_OPTION_FLAG, INTO(force),
     .about = "Replace a folder that nybble made before."},
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_convert_params params = {.model = call->operands[0],
                                       .out = o->output,
                                       .format = formats[o->format],
                                       .shard_bytes = o->shard_size,
                                       .force = o->force};
    nyb_convert_result r;
    nyb_err err;
    if (nyb_convert(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json) {
        json_t *const doc = nyb_call_document(call);
        json_object_set_new(doc, "output", json_string(params.out));
        json_object_set_new(doc, "format", json_string(params.format));
        json_object_set_new(doc, "layers", json_integer((json_int_t) r.layers));
        json_object_set_new(doc, "exact", json_boolean(r.exact));
        json_object_set_new(doc, "bytes_in", json_integer((json_int_t) r.bytes_in));
        json_object_set_new(doc, "bytes_out", json_integer((json_int_t) r.bytes_out));
        json_object_set_new(doc, "seconds", json_real(r.seconds));
        nyb_call_print_json(call, doc);
        return NYB_EXIT_OK;
    }
    char before[32], after[32];
    (void) printf("%s: %zu quantised layers as %s, %s, %s -> %s, %.1f s\n", params.out, r.layers,
                  params.format, r.exact ? "bit for bit" : "rounded once",
                  nyb_bytes_text(before, r.bytes_in), nyb_bytes_text(after, r.bytes_out),
                  r.seconds);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_convert = {
    .name = "convert",
    .about = "Brings a quantised checkpoint into another layout, or back to floats",
    .operands = "MODEL",
    .operand_min = 1,
    .operand_max = 1,
    .options = table,
    .options_size = sizeof(options),
    .defaults = &defaults,
    .examples =
        (const nyb_example[]){{"nybble convert llama-awq -o llama-ct -f compressed-tensors",
                               "The same weights for other readers."},
                              {"nybble convert llama-fp8 -o llama-bf16 -f bf16", "Dequantised."},
                              {"nybble convert llama -o llama-preset -f keras",
                               "A preset of Llama, Gemma 3 or GPT-2 for KerasHub."},
                              {0}},
    .notes = "MODEL is a Hugging Face folder in the layout GPTQ v1 or v2, AWQ, compressed-tensors "
             "or FP8, or, with --format bf16, f16 or f32, a GGUF file: FOLDER then gets its "
             "configuration and tokenizer, too.\n\n"
             "As floats, matrices become the type that was asked for, and vectors stay as they "
             "are. The result is written into FOLDER.partial and renamed once it is complete and "
             "was read back; FOLDER/nybble_report.json says what was done.",
    .run = run,
};
