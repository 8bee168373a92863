#include <stdio.h>

#include "cli/command.h"
#include "nybble/predict.h"

typedef struct options {
    nyb_texts inputs, outputs;
} options;

static const options defaults = {0};

static const nyb_option table[] = {
    {"input", 'i', NYB_OPTION_PATHS, NYB_INTO(options, inputs), .value = "FILE",
     .about = "Samples: a .npy file of [samples, ...]. Of a model with several inputs: once for "
              "each, in the model's order.",
     .required = true},
    {"output", 'o', NYB_OPTION_PATHS, NYB_INTO(options, outputs), .value = "FILE",
     .about = "The .npy file to write. Of a model with several outputs: once for each.",
     .required = true},
    {0}};

static void print_shape(const nyb_predict_result *r, size_t output)
{
    (void) printf("f32 [");
    for (unsigned i = 0; i < r->rank[output]; i++)
        (void) printf("%s%zu", i ? ", " : "", r->shape[output][i]);
    (void) printf("]\n");
}

static json_t *shape_of(const nyb_predict_result *r, size_t output)
{
    json_t *const shape = json_array();
    for (unsigned i = 0; i < r->rank[output]; i++)
        json_array_append_new(shape, json_integer((json_int_t) r->shape[output][i]));
    return shape;
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_predict_params params = {.model = call->operands[0],
                                       .inputs = o->inputs.at,
                                       .input_count = o->inputs.count,
                                       .outputs = o->outputs.at,
                                       .output_count = o->outputs.count};
    nyb_predict_result result;
    nyb_err err;
    if (nyb_predict(&call->context, &params, &result, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json) {
        json_t *const list = json_array();
        for (size_t i = 0; i < result.output_count; i++)
            json_array_append_new(list, json_pack("{s:s, s:o}", "path", o->outputs.at[i], "shape",
                                                  shape_of(&result, i)));
        return nyb_call_answer(call, "{s:I, s:o}", "samples", (json_int_t) result.samples,
                               "outputs", list);
    }
    for (size_t i = 0; i < result.output_count && !call->quiet; i++) {
        (void) printf("%s: ", o->outputs.at[i]);
        print_shape(&result, i);
    }
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_predict = {
    .name = "predict",
    .about = "Runs a Keras model over samples",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .memory = true,
    .examples = (const nyb_example[]){{"nybble predict model.keras -i x.npy -o y.npy",
                                       "What the model makes of the samples in x.npy, in f32."},
                                      {0}},
    .notes = "MODEL is a .keras file whose model is Sequential or Functional. A layer that nybble "
             "does not know is named in the error.",
    .run = run,
};
