#include <stdio.h>
#include <string.h>

#include "cli/quantizing.h"
#include "nybble/allocate.h"

static nyb_exit answer(const nyb_call *call, const nyb_quantize_params *params,
                       const nyb_quantize_result *r)
{
    return nyb_call_answer(call, "{s:o?, s:I, s:I, s:I, s:f, s:I, s:I, s:o, s:o, s:f, s:I}",
                           "output", json_string(params->out), "layers", (json_int_t) r->layers,
                           "samples", (json_int_t) r->samples, "tokens", (json_int_t) r->tokens,
                           "bits_per_weight", r->bits_per_weight, "bytes_in",
                           (json_int_t) r->bytes_in, "bytes_out", (json_int_t) r->bytes_out, "loss",
                           nyb_json_finite(r->loss), "rtn_loss", nyb_json_finite(r->rtn_loss),
                           "seconds", r->seconds, "resumed_blocks", (json_int_t) r->resumed_blocks);
}

// Makes the recipe for --target-bits, "FOLDER.recipe.json", unless a run that is resumed has made it.
static nyb_status choose_bits(const nyb_call *call, nyb_quantize_params *params, char *path,
                              size_t room, nyb_err *err)
{
    const nyb_quantizing *const o = call->options;
    size_t length = strlen(o->output);
    while (length > 1 && o->output[length - 1] == '/')
        length--;
    (void) snprintf(path, room, "%.*s.recipe.json", (int) length, o->output);
    FILE *const made = o->resume ? fopen(path, "r") : NULL;
    const nyb_allocate_params allocate = {.quantize = *params,
                                          .target_bits = o->target_bits,
                                          .out = path,
                                          .force = o->force || o->resume};
    const nyb_status status = made ? NYB_OK : nyb_allocate(&call->context, &allocate, NULL, err);
    if (made)
        (void) fclose(made);
    params->recipe = path;
    return status;
}

static nyb_exit run(const nyb_call *call)
{
    const nyb_quantizing *const o = call->options;
    nyb_quantize_params params = nyb_quantizing_params(call);
    const bool chosen = nyb_call_given(call, "target-bits");
    char recipe[4096];
    nyb_quantize_result r;
    nyb_err err;
    if (!o->output)
        return nyb_call_usage(call, "say where the result goes: -o FOLDER");
    if (chosen &&
        (!o->hessians || nyb_call_given(call, "weight-bits") || nyb_call_given(call, "group-size")))
        return nyb_call_usage(call, "--target-bits needs --hessians, and chooses bits and group "
                                    "sizes itself: leave out --weight-bits and --group-size");
    if (chosen && choose_bits(call, &params, recipe, sizeof(recipe), &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (nyb_quantize(&call->context, &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return answer(call, &params, &r);
    char before[32], after[32];
    (void) printf("%s: %zu layers at %.2f bits per weight, %s -> %s, %.1f s\n", params.out,
                  r.layers, r.bits_per_weight, nyb_bytes_text(before, r.bytes_in),
                  nyb_bytes_text(after, r.bytes_out), r.seconds);
    if (r.tokens > 0 && r.tokens == r.samples && r.rtn_loss > 0.0)
        (void) printf("calibrated on %zu samples; layer error %.3f of plain rounding's\n",
                      r.samples, r.loss / r.rtn_loss);
    else if (r.tokens > 0 && r.rtn_loss > 0.0)
        (void) printf("calibrated on %zu x %zu tokens; layer error %.3f of plain rounding's\n",
                      r.samples, r.tokens / r.samples, r.loss / r.rtn_loss);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_quantize = {
    .name = "quantize",
    .about = "Compresses a checkpoint by GPTQ, plain rounding or plain INT4",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(nyb_quantizing_options, nyb_quantizing, nyb_quantizing_defaults),
    .memory = true,
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble quantize llama -o llama-4bit --calib text.txt", "4 bits, groups of 128."},
            {"nybble quantize llama -o llama-3bit -b 3 -g 64 --asymmetric --calib text.txt -n 64 "
             "-l 512",
             "3 bits, calibrated on 64 windows of 512 tokens."},
            {"nybble quantize llama -o llama-mixed --hessians llama.h5 --target-bits 3.2",
             "3.2 bits a weight on average, more of them where they matter."},
            {"nybble quantize llama -o llama-int4 --method int4",
             "Plain INT4, to compare with; needs no text."},
            {"nybble quantize model.keras -o model-int8.keras --method int8",
             "A Keras model, as Keras would quantise it."},
            {0}},
    .notes =
        "MODEL is a Hugging Face folder. Every linear layer inside the blocks is rounded; "
        "embedding, norms and output head are copied.\n\n"
        "Or it is a Keras checkpoint: a .keras or .weights.h5 file, or a folder with "
        "model.weights.h5. The result is one of the same kind that Keras loads; all layers are "
        "rounded that Keras itself quantises, embeddings too.\n\n"
        "The result is written into FOLDER.partial and renamed once it is complete, synced and "
        "read back. After an interruption --resume goes on there and gives the same bytes. "
        "FOLDER/nybble_report.json, or FILE.report.json, says what was done to each layer.\n\n"
        "A recipe is a JSON object with the settings above, named with underscores, and "
        "\"modules\", a list of objects with a \"pattern\" of layer names and settings for them: "
        "{\"weight_bits\": 4, \"modules\": [{\"pattern\": \"*.mlp.down_proj\", \"weight_bits\": "
        "8}]}. The method \"none\" leaves a layer as it is. The command line wins over the "
        "recipe's general settings, patterns win over both.",
    .run = run,
};
