#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "nybble/solve.h"

typedef struct options {
    const char *weight, *hessian, *inputs, *output;
    bool force;
    nyb_method method;
    size_t bits;
    int group_size;
    size_t refine;
    bool asymmetric, static_groups, scale_search, reference;
    nyb_gptq_order order;
    double damping;
    nyb_dtype scale_dtype;
    size_t lowest_zero;
} options;

// In the order of nyb_method, nyb_gptq_order and nyb_dtype.
static const char *const methods[] = {"gptq", "rtn", "int4", "int8", NULL};
static const char *const orders[] = {"group", "none", "full", NULL};
static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};

static const options defaults = {
    .bits = 4, .group_size = 128, .damping = 0.01, .refine = NYB_GPTQ_REFINE};

static const nyb_option table[] = {
    {"weight", 0, NYB_OPTION_PATH, NYB_INTO(options, weight), .value = "FILE",
     .about = "The layer's weight, .npy [out_features, in_features].", .required = true},
    {"hessian", 0, NYB_OPTION_PATH, NYB_INTO(options, hessian), .value = "FILE",
     .about = "Sum of x x^T over its inputs, times any factor, .npy [in_features, in_features]."},
    {"inputs", 0, NYB_OPTION_PATH, NYB_INTO(options, inputs), .value = "FILE",
     .about = "Or the inputs themselves, .npy [tokens, in_features]."},
    {"output", 'o', NYB_OPTION_PATH, NYB_INTO(options, output), .value = "FOLDER",
     .about = "Folder to make for the results.", .required = true},
    {"force", 0, NYB_OPTION_FLAG, NYB_INTO(options, force),
     .about = "Replace the results of an earlier solve."},
    {"method", 'm', NYB_OPTION_CHOICE, NYB_INTO(options, method), .choices = methods,
     .about =
         "gptq; rtn: plain rounding on the same grid; int4, int8: plain rounding as Keras does "
         "it, with one symmetric scale a channel; int4 with --group-size has zero points.",
     .section = "Quantization"},
    {"weight-bits", 'b', NYB_OPTION_SIZE, NYB_INTO(options, bits), .value = "N", .min = 2, .max = 8,
     .about = "Bits of a code: 2, 3, 4 or 8."},
    {"group-size", 'g', NYB_OPTION_INT, NYB_INTO(options, group_size), .value = "N", .min = -1,
     .max = 1024,
     .about = "Input columns that share a scale, 16 to 1024; -1: one scale a channel."},
    {"asymmetric", 0, NYB_OPTION_FLAG, NYB_INTO(options, asymmetric),
     .about = "Give each group a zero point of its own."},
    {"symmetric", 0, NYB_OPTION_CLEAR, NYB_INTO(options, asymmetric),
     .about = "Fix the zero point to the middle code (this is the default)."},
    {"activation-order", 0, NYB_OPTION_CHOICE, NYB_INTO(options, order), .choices = orders,
     .about = "Order of columns. group: by their activations, file layout kept; full: by their "
              "activations throughout, groups follow (desc_act); none: as they lie.",
     .shown_default = "group; none with --reference"},
    {"static-groups", 0, NYB_OPTION_SWITCH, NYB_INTO(options, static_groups),
     .about = "Choose all scales before the first column is rounded."},
    {"hessian-damping", 0, NYB_OPTION_REAL, NYB_INTO(options, damping), .value = "X", .min = 1e-12,
     .max = 1,
     .about = "What is added to the Hessian's diagonal, as a part of its mean. Doubled, and "
              "reported, while the Hessian is not positive definite."},
    {"scale-search", 0, NYB_OPTION_SWITCH, NYB_INTO(options, scale_search),
     .about = "Narrow a group's range where that lowers its squared error."},
    {"refine", 0, NYB_OPTION_SIZE, NYB_INTO(options, refine), .value = "N", .min = 0,
     .max = NYB_REFINE_MOST,
     .about =
         "Rounds in which codes, scales and zero points are improved after the GPTQ pass, whose "
         "scales are then searched; 0: the pass alone.",
     .shown_default = "2; 0 with --reference"},
    {"scale-dtype", 0, NYB_OPTION_CHOICE, NYB_INTO(options, scale_dtype), .choices = dtypes,
     .about = "Type that scales are rounded to before weights are rounded on them."},
    {"lowest-zero", 0, NYB_OPTION_SIZE, NYB_INTO(options, lowest_zero), .value = "N", .min = 0,
     .max = 1, .about = "Smallest zero point allowed; 1 for the GPTQ v1 layout."},
    {"reference", 0, NYB_OPTION_FLAG, NYB_INTO(options, reference),
     .about = "Behave as the GPTQ paper's published code, to compare results code by code."},
    {0}};

static const char *const reference_notes =
    "Writes codes.npy (uint8 [out, in], columns in their original order), scales.npy (float32) and "
    "zeros.npy (uint8) [out, groups], g_idx.npy (int32 [in]: each column's group) and report.json. "
    "The quantised weight is scales[i, g] * (codes[i, j] - zeros[i, g]) with g = g_idx[j].\n"
    "\n"
    "With --reference: scales of a group that starts inside a block of 128 columns come from "
    "weights that lack the block's updates; a symmetric group without negative weights gets half "
    "the range; --scale-search takes 80 steps by the 2.4-norm; one scale a channel is chosen "
    "before columns without inputs are zeroed, and from the original weights; such columns count "
    "as 1 in the mean that damping is relative to, and in the order; --inputs X are one sample, so "
    "that the Hessian is 2 X^T X.";

// Bits of a method that cannot have others, 0: it can.
static size_t fixed_bits(nyb_method method)
{
    return method == NYB_METHOD_INT4 ? 4 : method == NYB_METHOD_INT8 ? 8 : 0;
}

static nyb_solve_params params_of(const nyb_call *call)
{
    const options *const o = call->options;
    nyb_solve_params params = NYB_SOLVE_DEFAULTS;
    params.method = o->method;
    params.gptq.grid.bits = (unsigned) o->bits;
    params.gptq.grid.group_size = o->group_size < 0 ? 0 : (size_t) o->group_size;
    if (fixed_bits(o->method) && !nyb_call_given(call, "group-size"))
        params.gptq.grid.group_size = 0;
    params.gptq.grid.symmetric = !o->asymmetric;
    params.gptq.grid.scale_search = o->scale_search;
    params.gptq.grid.scale_dtype = o->scale_dtype;
    params.gptq.grid.lowest_zero = (unsigned) o->lowest_zero;
    params.gptq.grid.reference = o->reference;
    params.gptq.order = o->order;
    if (o->reference && !nyb_call_given(call, "activation-order"))
        params.gptq.order = NYB_ORDER_NONE;
    params.gptq.static_groups = o->static_groups;
    params.gptq.damping = o->damping;
    params.gptq.refine = (unsigned) o->refine;
    if (o->reference && !nyb_call_given(call, "refine"))
        params.gptq.refine = 0;
    return params;
}

static nyb_exit print_json(const nyb_call *call)
{
    const options *const o = call->options;
    char path[4096];
    nyb_err err = {.status = NYB_E_IO};
    (void) snprintf(path, sizeof(path), "%s/report.json", o->output);
    json_t *const report = json_load_file(path, 0, NULL);
    if (!report) {
        (void) snprintf(err.text, sizeof(err.text), "cannot read the report in '%.900s' back",
                        o->output);
        return nyb_call_fail(call, &err);
    }
    nyb_call_print_json(call, report);
    return NYB_EXIT_OK;
}

static void print_text(const options *o, const nyb_gptq_report *r)
{
    if (r->relative_error == r->relative_error)
        (void) printf("output error        %.6g of the output\n", r->relative_error);
    if (r->rtn_loss > 0.0)
        (void) printf("of plain rounding's %.4f\n", r->loss / r->rtn_loss);
    if (r->attempts)
        (void) printf("damping             %g%s\n", r->damping,
                      r->attempts > 1 ? " (raised: the Hessian was not positive definite)" : "");
    if (r->dead_columns)
        (void) printf("columns not used    %zu\n", r->dead_columns);
    (void) printf("written to          %s\n", o->output);
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_solve_files files = {.weight = o->weight,
                                   .hessian = o->hessian,
                                   .inputs = o->inputs,
                                   .output = o->output,
                                   .force = o->force};
    if (o->hessian && o->inputs)
        return nyb_call_usage(call, "--hessian and --inputs exclude each other");
    if (o->method == NYB_METHOD_GPTQ && !o->hessian && !o->inputs)
        return nyb_call_usage(call, "--method gptq needs --hessian or --inputs");
    if (o->bits > 4 && o->bits < 8)
        return nyb_call_usage(call, "--weight-bits is %zu, want 2, 3, 4 or 8", o->bits);
    if (o->group_size != -1 && o->group_size < 16)
        return nyb_call_usage(call, "--group-size is %d, want -1 or 16 to 1024", o->group_size);
    const size_t bits = fixed_bits(o->method);
    if (bits && o->bits != bits && nyb_call_given(call, "weight-bits"))
        return nyb_call_usage(call, "--method %s has %zu bits, not %zu", methods[o->method], bits,
                              o->bits);
    if (o->method == NYB_METHOD_INT8 && o->group_size > 0 && nyb_call_given(call, "group-size"))
        return nyb_call_usage(call, "--method int8 has no groups");

    const nyb_solve_params params = params_of(call);
    nyb_gptq_report report;
    nyb_err err;
    if (nyb_solve_run(&call->context, &files, &params, &report, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return print_json(call);
    print_text(o, &report);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_solve = {
    .name = "solve",
    .about = "Quantises one linear layer given as arrays",
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples =
        (const nyb_example[]){
            {"nybble solve --weight W.npy --inputs X.npy --weight-bits 3 -o layer",
             "GPTQ with the inputs that the layer saw."},
            {"nybble solve --weight W.npy --hessian H.npy --method rtn --json -o layer",
             "Plain rounding, its error measured on the same inputs."},
            {0}},
    .notes = reference_notes,
    .run = run,
};
