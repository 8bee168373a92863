#include <stdio.h>
#include <string.h>

#include "cli/making.h"
#include "nybble/merge.h"

typedef struct options {
    nyb_making making;
} options;

static const options defaults = {.making = NYB_MAKING_DEFAULTS};

static const nyb_option table[] = {
    NYB_MAKING_HEAD(options, making), NYB_MAKING_TAIL(options, making), {0}};

// The layers as the report has them.
static json_t *layers_of(const char *folder)
{
    char path[4096];
    const int length = snprintf(path, sizeof(path), "%s/nybble_report.json", folder);
    json_t *const report =
        length > 0 && (size_t) length < sizeof(path) ? json_load_file(path, 0, NULL) : NULL;
    json_t *const layers = json_incref(json_object_get(report, "layers"));
    json_decref(report);
    return layers ? layers : json_null();
}

static nyb_exit answer(const nyb_call *call, const nyb_merge_params *params,
                       const nyb_merge_result *r)
{
    return nyb_call_answer(
        call, "{s:o?, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:f, s:o}", "output",
        json_string(params->out), "layers", (json_int_t) r->layers, "requantized",
        (json_int_t) r->requantized, "replaced", (json_int_t) r->replaced, "weight_error",
        nyb_json_finite(r->weight_error), "delta_error", nyb_json_finite(r->delta_error),
        "bytes_in", (json_int_t) r->bytes_in, "bytes_out", (json_int_t) r->bytes_out, "seconds",
        r->seconds, "merged", layers_of(params->out));
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_merge_params params = {.model = call->operands[0],
                                     .adapter = call->operands[1],
                                     .out = o->making.output,
                                     .shard_bytes = o->making.shard_size,
                                     .force = o->making.force,
                                     .command = call->line};
    nyb_merge_result r;
    nyb_err err;
    if (nyb_merge(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return answer(call, &params, &r);
    (void) printf("%s: %zu layers changed, %zu tensors replaced, %.1f s\n", params.out, r.layers,
                  r.replaced, r.seconds);
    if (r.requantized)
        (void) printf("%zu layers rounded anew: squared error %.3g of the weights, %.3g of the "
                      "adapter's part\n",
                      r.requantized, r.weight_error, r.delta_error);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_merge = {
    .name = "merge",
    .about = "Adds a LoRA adapter to the weights of its base",
    NYB_COMMAND_OPERANDS("BASE ADAPTER", 2),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples =
        (const nyb_example[]){
            {"nybble merge llama llama-lora -o llama-tuned", "One checkpoint of the two."},
            {"nybble merge llama-4bit llama-lora -o llama-4bit-tuned --json",
             "The same for quantised weights, with what rounding them anew costs."},
            {0}},
    .notes = "BASE is a Hugging Face folder, quantised or not; ADAPTER a folder as PEFT saves it, "
             "with adapter_config.json and adapter_model.safetensors.\n\n"
             "Quantised layers are dequantised, gain the adapter's part, and are rounded to "
             "nearest with the settings that they have; FOLDER/nybble_report.json tells the "
             "loss of each. Where the squared error is near or above the adapter's part itself, "
             "merge into the full-precision checkpoint and quantise that.",
    .run = run,
};
