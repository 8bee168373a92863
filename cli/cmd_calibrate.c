#include <stdio.h>

#include "cli/command.h"
#include "nybble/calibrate.h"

typedef struct options {
    const char *output;
    nyb_texts calib;
    size_t num_samples, sequence_length, seed;
    int bos;
    double percentile;
    bool force;
} options;

static const options defaults = {.num_samples = 128, .sequence_length = 512, .percentile = 99.99};

static const char *const bos_words[] = {"auto", "never", "always", NULL};

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, NYB_INTO(options, output), .value = "FILE", .required = true,
     .about = "JSON file to write."},
    {"force", 0, NYB_OPTION_FLAG, NYB_INTO(options, force), .about = "Replace the file."},
    {"calib", 'c', NYB_OPTION_PATHS, NYB_INTO(options, calib), .value = "FILE[:WEIGHT]",
     .about = "Text, JSON lines or token ids to run the model on, as quantize takes them."},
    {"num-samples", 'n', NYB_OPTION_SIZE, NYB_INTO(options, num_samples), .value = "N", .min = 1,
     .max = 1e7, .about = "Windows of text."},
    {"sequence-length", 'l', NYB_OPTION_SIZE, NYB_INTO(options, sequence_length), .value = "N",
     .min = 2, .max = 1e7, .about = "Tokens of a window."},
    {"bos", 0, NYB_OPTION_CHOICE, NYB_INTO(options, bos), .choices = bos_words, .value = "WHEN",
     .about = "Whether each window begins with the begin-of-sequence token."},
    {"seed", 's', NYB_OPTION_SIZE, NYB_INTO(options, seed), .value = "N", .shown_default = "",
     .about = "Draw the windows at random, with this seed."},
    {"percentile", 0, NYB_OPTION_REAL, NYB_INTO(options, percentile), .value = "P", .min = 50.001,
     .max = 100, .about = "Percentile of the magnitudes that is recorded."},
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_calibrate_params params = {
        .model = call->operands[0],
        .out = o->output,
        .samples = {.paths = o->calib.at,
                    .path_count = o->calib.count,
                    .count = o->num_samples,
                    .length = o->sequence_length,
                    .bos = (nyb_bos) o->bos,
                    .shuffle = nyb_call_given(call, "seed"),
                    .seed = o->seed},
        .percentile = o->percentile,
        .force = o->force,
    };
    nyb_calibrate_result r;
    nyb_err err;
    if (nyb_calibrate(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json) {
        json_t *const doc = nyb_call_document(call);
        json_object_set_new(doc, "output", json_string(o->output));
        json_object_set_new(doc, "layers", json_integer((json_int_t) r.layers));
        json_object_set_new(doc, "samples", json_integer((json_int_t) r.samples));
        json_object_set_new(doc, "tokens", json_integer((json_int_t) r.tokens));
        json_object_set_new(doc, "seconds", json_real(r.seconds));
        nyb_call_print_json(call, doc);
        return NYB_EXIT_OK;
    }
    (void) printf("%s: inputs of %zu layers over %zu tokens in %zu samples, %.1f s\n", o->output,
                  r.layers, r.tokens, r.samples, r.seconds);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_calibrate = {
    .name = "calibrate",
    .about = "Records how the inputs of a model's layers are spread",
    .operands = "MODEL",
    .operand_min = 1,
    .operand_max = 1,
    .options = table,
    .options_size = sizeof(options),
    .defaults = &defaults,
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble calibrate llama --calib text.txt -o llama-inputs.json",
             "Smallest and largest values, and where to clip, of each layer's input."},
            {0}},
    .notes = "The file has an object \"layers\" with, for each linear layer: tokens, min, max, "
             "absmax, percentile, mse and entropy. The last three are magnitudes to clip at when "
             "inputs are rounded to 8-bit whole numbers.",
    .run = run,
};
