#include <stdio.h>

#include "cli/making.h"
#include "nybble/convert.h"

typedef struct options {
    nyb_making making;
    int format;
} options;

static const char *const formats[] = {
    "bf16", "f16", "f32", "compressed-tensors", "gptq", "gptq_v2", "awq", "fp8", "keras", NULL};

static const options defaults = {.making = NYB_MAKING_DEFAULTS};

static const nyb_option table[] = {
    NYB_MAKING_HEAD(options, making),
    {"format", 'f', NYB_OPTION_CHOICE, NYB_INTO(options, format), .choices = formats,
     .value = "FORMAT", .required = true,
     .about =
         "bf16, f16, f32: weights as floats. keras: a KerasHub preset with the very floats of a "
         "folder. The others: the same codes and scales in another layout, with not a bit of a "
         "weight changed; what a layout cannot hold is refused."},
    NYB_MAKING_TAIL(options, making),
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_convert_params params = {.model = call->operands[0],
                                       .out = o->making.output,
                                       .format = formats[o->format],
                                       .shard_bytes = o->making.shard_size,
                                       .force = o->making.force,
                                       .command = call->line};
    nyb_convert_result r;
    nyb_err err;
    if (nyb_convert(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return nyb_call_answer(
            call, "{s:o?, s:s, s:I, s:b, s:I, s:I, s:f}", "output", json_string(params.out),
            "format", params.format, "layers", (json_int_t) r.layers, "exact", r.exact, "bytes_in",
            (json_int_t) r.bytes_in, "bytes_out", (json_int_t) r.bytes_out, "seconds", r.seconds);
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
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
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
