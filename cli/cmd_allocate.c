#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "nybble/allocate.h"

typedef struct options {
    const char *output, *hessians, *recipe, *format, *bits, *groups, *table;
    double target_bits, damping;
    size_t refine, samples;
    int sensitivity;
    bool asymmetric, scale_search, alone, force;
} options;

static const options defaults = {.format = "compressed-tensors",
                                 .bits = "2,3,4,8",
                                 .groups = "32,64,128,-1",
                                 .damping = 0.01,
                                 .refine = NYB_GPTQ_REFINE};

// In the order of nyb_sensitivity.
static const char *const sensitivities[] = {"kl", "relative", "output", NULL};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FILE", .required = true,
     .about = "Recipe to write, for quantize --recipe."},
    {"target-bits", 'b', NYB_OPTION_REAL, INTO(target_bits), .value = "B", .required = true,
     .min = 0.1, .max = 16, .shown_default = "",
     .about = "Bits of a weight, scales and zero points included, over all layers."},
    {"hessians", 0, NYB_OPTION_PATH, INTO(hessians), .value = "FILE", .required = true,
     .about = "Store of Hessians (nybble calibrate --hessians) that the layers' losses are of."},
    {"bits", 0, NYB_OPTION_TEXT, INTO(bits), .value = "LIST",
     .about = "Bits that a layer may get."},
    {"groups", 0, NYB_OPTION_TEXT, INTO(groups), .value = "LIST",
     .about = "Group sizes that it may get; -1: one scale per output channel."},
    {"sensitivity", 0, NYB_OPTION_CHOICE, INTO(sensitivity), .choices = sensitivities,
     .value = "WHICH",
     .about = "What is added up over layers. kl: how far the model's predictions move when the "
              "layer alone is rounded. relative: the squared error of the layer's output against "
              "that output's energy. output: the squared error as it is."},
    {"samples", 'n', NYB_OPTION_SIZE, INTO(samples), .value = "N", .min = 1, .max = 1e6,
     .shown_default = "as many as make up 1024 tokens",
     .about = "Samples of the store that --sensitivity kl runs the model on."},
    {"alone", 0, NYB_OPTION_FLAG, INTO(alone),
     .about = "Let layers that read the same input (q, k and v; gate and up) differ. Readers that "
              "fuse them, as vLLM does, do not take that."},
    {"asymmetric", 0, NYB_OPTION_FLAG, INTO(asymmetric),
     .about = "Give each group a zero point of its own.", .section = "Rounding"},
    {"scale-search", 0, NYB_OPTION_SWITCH, INTO(scale_search),
     .about = "Choose scales by least squared error instead of by the extremes."},
    {"hessian-damping", 0, NYB_OPTION_REAL, INTO(damping), .value = "F", .min = 1e-9, .max = 0.999,
     .about = "Added to the Hessian's diagonal, as a fraction of its mean."},
    {"refine", 0, NYB_OPTION_SIZE, INTO(refine), .value = "N", .min = 0, .max = NYB_REFINE_MOST,
     .about =
         "Rounds of refinement that the recipe asks for; losses are measured with one at most."},
    {"recipe", 0, NYB_OPTION_PATH, INTO(recipe), .value = "FILE",
     .about = "Recipe to begin with; layers that it does not solve by gptq keep their settings."},
    {"format", 'f', NYB_OPTION_TEXT, INTO(format), .value = "FORMAT",
     .about = "Whose readers have to take the choices, as in quantize."},
    {"table", 0, NYB_OPTION_PATH, INTO(table), .value = "FILE",
     .about =
         "What was measured, as JSON. Written, so that another --target-bits takes it from there."},
    {"force", 0, NYB_OPTION_FLAG, INTO(force),
     .about = "Replace the recipe, and a table that was measured otherwise."},
    {0}};

// Whole numbers between commas; the number of them, 0: it is no such list.
static size_t read_list(const char *text, long *out, size_t most)
{
    size_t count = 0;
    for (;; text++) {
        char *end = NULL;
        const long value = strtol(text, &end, 10);
        if (end == text || count == most || (*end != ',' && *end != '\0'))
            return 0;
        out[count++] = value;
        text = end;
        if (*text == '\0')
            return count;
    }
}

static bool read_choices(const options *o, nyb_allocate_params *params)
{
    long bits[NYB_ALLOCATE_BITS], groups[NYB_ALLOCATE_GROUPS];
    params->bit_count = read_list(o->bits, bits, NYB_ALLOCATE_BITS);
    params->group_count = read_list(o->groups, groups, NYB_ALLOCATE_GROUPS);
    for (size_t i = 0; i < params->bit_count; i++)
        params->bits[i] = bits[i] > 0 && bits[i] < 99 ? (unsigned) bits[i] : 99;
    for (size_t i = 0; i < params->group_count; i++)
        params->groups[i] = groups[i] == -1 ? 0 : groups[i] > 0 ? (size_t) groups[i] : SIZE_MAX;
    return params->bit_count > 0 && params->group_count > 0;
}

static nyb_quantize_params quantize_params(const nyb_call *call)
{
    const options *const o = call->options;
    nyb_quantize_params params = {.model = call->operands[0],
                                  .out = o->output,
                                  .format = o->format,
                                  .recipe = o->recipe,
                                  .settings = NYB_SETTINGS_DEFAULTS,
                                  .hessians = o->hessians};
    params.settings.symmetric = !o->asymmetric;
    params.settings.scale_search = o->scale_search;
    params.settings.damping = o->damping;
    params.settings.refine = (unsigned) o->refine;
    params.given |= nyb_call_given(call, "asymmetric") ? NYB_SETTING_SYMMETRIC : 0u;
    params.given |= nyb_call_given(call, "scale-search") ? NYB_SETTING_SCALE_SEARCH : 0u;
    params.given |= nyb_call_given(call, "hessian-damping") ? NYB_SETTING_DAMPING : 0u;
    params.given |= nyb_call_given(call, "refine") ? NYB_SETTING_REFINE : 0u;
    return params;
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    nyb_allocate_params params = {.quantize = quantize_params(call),
                                  .target_bits = o->target_bits,
                                  .sensitivity = (nyb_sensitivity) o->sensitivity,
                                  .samples = o->samples,
                                  .alone = o->alone,
                                  .out = o->output,
                                  .table = o->table,
                                  .force = o->force};
    nyb_allocate_result r;
    nyb_err err;
    if (!read_choices(o, &params))
        return nyb_call_usage(call, "--bits and --groups want whole numbers with commas between");
    if (nyb_allocate(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return nyb_call_answer(
            call, "{s:o?, s:I, s:f, s:o, s:o, s:f}", "output", json_string(o->output), "layers",
            (json_int_t) r.layers, "bits_per_weight", r.bits_per_weight, "loss",
            nyb_json_finite(r.loss), "bound", nyb_json_finite(r.bound), "seconds", r.seconds);
    (void) printf("%s: %zu layers at %.4f bits per weight, sensitivity %.6g, %s, %.1f s\n",
                  o->output, r.layers, r.bits_per_weight, r.loss,
                  r.bound < r.loss ? "not proven the least" : "proven the least", r.seconds);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_allocate = {
    .name = "allocate",
    .about = "Chooses bits and group sizes layer by layer within a budget",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble allocate llama --hessians llama.h5 --target-bits 3.2 -o recipe.json",
             "The recipe with the least error at 3.2 bits a weight."},
            {"nybble allocate llama --hessians llama.h5 -b 2.8 -o r28.json --table llama.json",
             "With a table that is there, another budget takes a moment."},
            {"nybble quantize llama --hessians llama.h5 --recipe recipe.json -o llama-mixed",
             "The checkpoint of that recipe."},
            {0}},
    .notes = "Every layer is solved at every number of bits and every group size; of all "
             "combinations within the budget, the one with the least sum of sensitivities is "
             "found by dynamic programming.",
    .run = run,
};
