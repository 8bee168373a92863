#include <stdio.h>
#include <string.h>

#include "cli/sampling.h"
#include "nybble/calibrate.h"

typedef struct options {
    const char *output, *extend, *part;
    nyb_sampling sampling;
    size_t compress;
    int expert_calibration;
    double percentile;
    bool force, hessians, merge;
} options;

static const options defaults = {
    .sampling = {.num_samples = 128, .sequence_length = 512, .first_weight = 1},
    .percentile = 99.99};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FILE", .required = true,
     .about = "File to write: JSON, or HDF5 with --hessians."},
    {"force", 0, NYB_OPTION_FLAG, INTO(force), .about = "Replace the file."},
    {"calib", 'c', NYB_OPTION_PATHS, INTO(sampling.calib), .value = "FILE[:WEIGHT]",
     .about = "Text, JSON lines or token ids to run the model on, as quantize takes them."},
    NYB_SAMPLING_OPTIONS(options, sampling),
    {"percentile", 0, NYB_OPTION_REAL, INTO(percentile), .value = "P", .min = 50.001, .max = 100,
     .about = "Percentile of the magnitudes that is recorded."},
    {"hessians", 0, NYB_OPTION_FLAG, INTO(hessians),
     .about = "Write a store of Hessians for quantize --hessians and sweep. A FILE named .h5 or "
              ".hdf5 asks for it too.",
     .section = "Hessians"},
    {"part", 0, NYB_OPTION_TEXT, INTO(part), .value = "I/N",
     .about = "Run the I-th of N parts of the windows alone; --merge puts the parts together."},
    {"extend", 0, NYB_OPTION_PATH, INTO(extend), .value = "STORE",
     .about = "Take over this store's sums, and run only the windows behind its own."},
    {"merge", 0, NYB_OPTION_FLAG, INTO(merge),
     .about = "Put stores, given instead of MODEL, together into one."},
    {"compress", 0, NYB_OPTION_SIZE, INTO(compress), .value = "LEVEL", .min = 0, .max = 9,
     .about = "Compress the store: 1 is fast, 9 small; 0: not."},
    {"expert-calibration", 0, NYB_OPTION_CHOICE, INTO(expert_calibration),
     .choices = nyb_expert_tokens, .value = "TOKENS",
     .about = "Tokens that an expert's Hessians are of: those routed to it, or all."},
    {0}};

static nyb_exit print(const nyb_call *call, const char *what, const nyb_calibrate_result *r)
{
    const options *const o = call->options;
    if (call->json)
        return nyb_call_answer(call, "{s:o?, s:I, s:I, s:I, s:f}", "output", json_string(o->output),
                               "layers", (json_int_t) r->layers, "samples", (json_int_t) r->samples,
                               "tokens", (json_int_t) r->tokens, "seconds", r->seconds);
    (void) printf("%s: %s of %zu layers over %zu tokens in %zu samples, %.1f s\n", o->output, what,
                  r->layers, r->tokens, r->samples, r->seconds);
    return NYB_EXIT_OK;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

// "2/3"; false for anything else.
static bool read_part(const char *text, nyb_hessians_params *params)
{
    int read = 0;
    return !text || (sscanf(text, "%9zu/%9zu%n", &params->part, &params->parts, &read) == 2 &&
                     text[read] == '\0' && params->parts > 0);
}

static nyb_exit run_hessians(const nyb_call *call)
{
    const options *const o = call->options;
    nyb_hessians_params params = {.model = call->operands[0],
                                  .out = o->output,
                                  .samples = nyb_sampling_params(call, &o->sampling),
                                  .experts = (nyb_expert_calibration) o->expert_calibration,
                                  .extend = o->extend,
                                  .compression = (unsigned) o->compress,
                                  .force = o->force};
    nyb_calibrate_result r;
    nyb_err err;
    if (!read_part(o->part, &params))
        return nyb_call_usage(call, "--part %s: want I/N, for example 1/4", o->part);
    if (o->merge && (o->sampling.calib.count > 0 || o->part || o->extend ||
                     nyb_call_given(call, "first-weight")))
        return nyb_call_usage(call, "--merge takes stores alone: no --calib, --part, --extend or "
                                    "--first-weight");
    const nyb_status status = o->merge ? nyb_merge_hessians(&call->context, call->operands,
                                                            call->operand_count, &params, &r, &err)
                                       : nyb_calibrate_hessians(&call->context, &params, &r, &err);
    return status == NYB_OK ? print(call, "Hessians", &r) : nyb_call_fail(call, &err);
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const bool stored = ends_with(o->output, ".h5") || ends_with(o->output, ".hdf5");
    const nyb_calibrate_params params = {
        .model = call->operands[0],
        .out = o->output,
        .samples = nyb_sampling_params(call, &o->sampling),
        .percentile = o->percentile,
        .force = o->force,
    };
    nyb_calibrate_result r;
    nyb_err err;
    if (!o->merge && call->operand_count > 1)
        return nyb_call_usage(call, "one MODEL is wanted, and %zu are given", call->operand_count);
    if (o->hessians || o->merge || stored)
        return run_hessians(call);
    if (o->part || o->extend || nyb_call_given(call, "compress") ||
        nyb_call_given(call, "expert-calibration") || nyb_call_given(call, "first-weight"))
        return nyb_call_usage(call, "--part, --extend, --compress, --expert-calibration and "
                                    "--first-weight are for --hessians");
    if (nyb_calibrate(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    return print(call, "inputs", &r);
}

const nyb_command nyb_command_calibrate = {
    .name = "calibrate",
    .about = "Records how the inputs of a model's layers are spread, or their Hessians",
    .operands = "MODEL|STORE...",
    .operand_min = 1,
    .operand_max = SIZE_MAX,
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .memory = true,
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble calibrate llama --calib text.txt -o llama-inputs.json",
             "Smallest and largest values, and where to clip, of each layer's input."},
            {"nybble calibrate llama --calib text.txt -n 128 -l 2048 -o llama.h5",
             "Hessians, for any number of runs of quantize --hessians llama.h5."},
            {"nybble calibrate --merge part1.h5 part2.h5 -o llama.h5",
             "The store that one run would have written."},
            {0}},
    .notes = "The file has an object \"layers\" with, for each linear layer: tokens, min, max, "
             "absmax, percentile, mse and entropy. The last three are magnitudes to clip at when "
             "inputs are rounded to 8-bit whole numbers.\n\n"
             "A store of Hessians is an HDF5 file with the sum of x x^T over the tokens for the "
             "input x of each layer, in \"hessians/LAYER/high\": the upper triangle, row by row. "
             "Its sums do not depend on the order of their terms, so parts that were made on "
             "several machines merge into the bytes of one run.",
    .run = run,
};
