#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "nybble/merge.h"

typedef struct options {
    const char *output;
    uint64_t shard_size;
    bool force;
} options;

static const options defaults = {.shard_size = 5000000000};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {{"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FOLDER",
                                    .required = true,
                                    .about = "Folder to write; it appears when it is complete."},
                                   {"shard-size", 0, NYB_OPTION_BYTES, INTO(shard_size),
                                    .value = "BYTES", .about = "Largest tensor file."},
                                   {"force", 0, NYB_OPTION_FLAG, INTO(force),
                                    .about = "Replace a folder that nybble made before."},
                                   {0}};

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

static json_t *document_of(const nyb_call *call, const nyb_merge_params *params,
                           const nyb_merge_result *r)
{
    json_t *const doc = nyb_call_document(call);
    json_object_set_new(doc, "output", json_string(params->out));
    json_object_set_new(doc, "layers", json_integer((json_int_t) r->layers));
    json_object_set_new(doc, "requantized", json_integer((json_int_t) r->requantized));
    json_object_set_new(doc, "replaced", json_integer((json_int_t) r->replaced));
    json_object_set_new(doc, "weight_error", nyb_json_finite(r->weight_error));
    json_object_set_new(doc, "delta_error", nyb_json_finite(r->delta_error));
    json_object_set_new(doc, "bytes_in", json_integer((json_int_t) r->bytes_in));
    json_object_set_new(doc, "bytes_out", json_integer((json_int_t) r->bytes_out));
    json_object_set_new(doc, "seconds", json_real(r->seconds));
    json_object_set_new(doc, "merged", layers_of(params->out));
    return doc;
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_merge_params params = {.model = call->operands[0],
                                     .adapter = call->operands[1],
                                     .out = o->output,
                                     .shard_bytes = o->shard_size,
                                     .force = o->force};
    nyb_merge_result r;
    nyb_err err;
    if (nyb_merge(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json) {
        nyb_call_print_json(call, document_of(call, &params, &r));
        return NYB_EXIT_OK;
    }
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
    .operands = "BASE ADAPTER",
    .operand_min = 2,
    .operand_max = 2,
    .options = table,
    .options_size = sizeof(options),
    .defaults = &defaults,
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
