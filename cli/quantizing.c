#include "cli/quantizing.h"

static const char *const methods[] = {"gptq", "rtn", "int4", "int8", "float8", NULL};
static const char *const ranges[] = {"absmax", "percentile", "mse", "entropy", NULL};

// In the order of nyb_activation_kind.
static const char *const activations[] = {
    "none",        "int8",          "float8", "int8-per-token", "float8-per-token",
    "int8-static", "float8-static", NULL};
static const char *const float8_types[] = {"e4m3", "e5m2", NULL};
static const char *const float8_scales[] = {"default", "tensor", "channel", "block", NULL};
static const char *const orders[] = {"group", "none", "full", NULL};
static const char *const formats[] = {
    "compressed-tensors", "fp8",       "gptq",      "gptq_v2",   "awq",
    "gguf:Q4_0",          "gguf:Q4_1", "gguf:Q5_0", "gguf:Q5_1", "gguf:Q8_0",
    "gguf:Q2_K",          "gguf:Q3_K", "gguf:Q4_K", "gguf:Q5_K", "gguf:Q6_K",
    "gguf:F16",           "gguf:BF16", "gguf:F32",  NULL};
// In the order of nyb_objective.
static const char *const objectives[] = {"layer", "model", NULL};
static const char *const outer_methods[] = {"none", "rtn", "int4", "int8", "float8", NULL};

const nyb_quantizing nyb_quantizing_defaults = {
    .weight_bits = 4,
    .group_size = 128,
    .damping = 0.01,
    .refine = NYB_GPTQ_REFINE,
    .percentile = 99.99,
    .input_percentile = 99.99,
    .expert_min_tokens = 1,
    .objective_strength = 0.5,
    .objective_step = 1,
    .sampling = {.num_samples = 128, .sequence_length = 2048, .first_weight = 1},
    .pack = true,
    .shard_size = (size_t) 5000000000,
};

static const char *const fallbacks[] = {"error", "rtn", NULL};

// In the order of nyb_loss_mask.
static const char *const loss_masks[] = {"none", "assistant", NULL};

#define INTO(field) NYB_INTO(nyb_quantizing, field)

const nyb_option nyb_quantizing_options[] = {
    {"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FOLDER",
     .about = "Folder, GGUF file, or Keras file to write; it appears when it is complete."},
    {"method", 'm', NYB_OPTION_CHOICE, INTO(method), .choices = methods, .value = "METHOD",
     .about =
         "gptq: rounding errors are fed back through the Hessian of the inputs. rtn: round to "
         "nearest on the same grid. int4, int8: one symmetric scale per output channel from "
         "the largest weight, as Keras does it; int4 with --group-size has zero points. float8: "
         "8-bit floats, scaled by the largest weight.",
     .section = "Rounding"},
    {"weight-bits", 'b', NYB_OPTION_SIZE, INTO(weight_bits), .value = "N", .min = 2, .max = 8,
     .about = "Bits of a weight: 2, 3, 4 or 8."},
    {"group-size", 'g', NYB_OPTION_INT, INTO(group_size), .value = "N", .min = -1, .max = 1024,
     .about = "Input columns that share a scale, 16 to 1024; -1: one scale per output channel."},
    {"asymmetric", 0, NYB_OPTION_FLAG, INTO(asymmetric),
     .about = "Give each group a zero point of its own."},
    {"symmetric", 0, NYB_OPTION_CLEAR, INTO(asymmetric),
     .about = "Fix the zero point to the middle code (this is the default)."},
    {"activation-order", 0, NYB_OPTION_CHOICE, INTO(order), .choices = orders, .value = "ORDER",
     .about = "Order in which columns are rounded. group: large inputs first, inside the groups "
              "and among them; the file's layout stays plain. none: as they lie. full: large "
              "inputs first throughout (desc_act); the file then needs g_idx."},
    {"static-groups", 0, NYB_OPTION_SWITCH, INTO(static_groups),
     .about = "Take the groups' scales from the weights before any of them is rounded."},
    {"scale-search", 0, NYB_OPTION_SWITCH, INTO(scale_search),
     .about = "Choose scales by least squared error instead of by the extremes."},
    {"hessian-damping", 0, NYB_OPTION_REAL, INTO(damping), .value = "F", .min = 1e-9, .max = 0.999,
     .about = "Added to the Hessian's diagonal, as a fraction of its mean."},
    {"refine", 0, NYB_OPTION_SIZE, INTO(refine), .value = "N", .min = 0, .max = NYB_REFINE_MOST,
     .about =
         "Rounds in which codes, scales and zero points are improved after the GPTQ pass, which "
         "then starts from searched scales; 0: the pass alone."},
    {"range", 0, NYB_OPTION_CHOICE, INTO(range), .choices = ranges, .value = "WHICH",
     .about = "How far a scale's codes reach. absmax: to the largest weight. percentile: to the "
              "magnitude that --percentile of the weights do not exceed. mse: least squared error. "
              "entropy: least divergence of the weights' distribution."},
    {"percentile", 0, NYB_OPTION_REAL, INTO(percentile), .value = "P", .min = 50.001, .max = 100,
     .about = "Of --range percentile, in percent."},
    {"activations", 'a', NYB_OPTION_CHOICE, INTO(activations), .choices = activations,
     .value = "WHAT",
     .about = "What readers of compressed-tensors are to round the inputs of layers to. int8 goes "
              "with whole numbers for weights, float8 with floats. Scales are measured at run "
              "time, for a tensor or per token, or static: from the --calib text."},
    {"activation-range", 0, NYB_OPTION_CHOICE, INTO(input_range), .choices = ranges,
     .value = "WHICH", .about = "As --range, of static activations."},
    {"activation-percentile", 0, NYB_OPTION_REAL, INTO(input_percentile), .value = "P",
     .min = 50.001, .max = 100, .about = "Of --activation-range percentile, in percent."},
    {"float8-type", 0, NYB_OPTION_CHOICE, INTO(float8_type), .choices = float8_types,
     .value = "TYPE",
     .about = "Of float8: e4m3 reaches 448 and is what readers know; e5m2 reaches further and is "
              "coarser."},
    {"float8-scales", 0, NYB_OPTION_CHOICE, INTO(float8_scales), .choices = float8_scales,
     .value = "WHICH",
     .about = "Of float8: one scale for each tensor, each output channel, or each block of 128 x "
              "128. default: channel; block for --format fp8."},
    {"objective", 0, NYB_OPTION_CHOICE, INTO(objective), .choices = objectives, .value = "WHAT",
     .about =
         "What GPTQ brings a layer's output near to. layer: its own on the inputs that it will "
         "see. model: the unrounded model's, which then runs beside it; takes twice the time "
         "and memory."},
    {"objective-strength", 0, NYB_OPTION_REAL, INTO(objective_strength), .value = "F", .min = 0,
     .max = 1, .about = "Of --objective model: how much of the way there."},
    {"objective-step", 0, NYB_OPTION_SIZE, INTO(objective_step), .value = "N", .min = 1,
     .max = NYB_OBJECTIVE_STEP_MOST,
     .about =
         "Of --objective model: the unrounded model runs on every Nth part of the samples, which "
         "takes less time and memory and gains less."},
    {"embedding", 0, NYB_OPTION_CHOICE, INTO(embedding), .choices = outer_methods,
     .value = "METHOD",
     .about = "Also round the embedding, row by row. Needs --format compressed-tensors."},
    {"head", 0, NYB_OPTION_CHOICE, INTO(head), .choices = outer_methods, .value = "METHOD",
     .about = "Also round the output head. One that shares its tensor with the embedding gets a "
              "tensor of its own."},
    {"target-bits", 0, NYB_OPTION_REAL, INTO(target_bits), .value = "B", .min = 0.1, .max = 16,
     .shown_default = "",
     .about =
         "Choose bits and group sizes layer by layer, as nybble allocate does it, so that all "
         "layers together have at most B bits a weight, scales and zero points included. Needs "
         "--hessians; the recipe is written to FOLDER.recipe.json."},
    {"config", 0, NYB_OPTION_PATH, INTO(config), .value = "FILE",
     .about =
         "Of a .weights.h5 file: the model's configuration (config.json of a .keras archive, or "
         "what to_json() gives), which tells what its layers are."},
    {"recipe", 0, NYB_OPTION_PATH, INTO(recipe), .value = "FILE",
     .about = "JSON file with these settings, also for patterns of layers."},
    {"calib", 'c', NYB_OPTION_PATHS, INTO(sampling.calib), .value = "FILE[:WEIGHT]",
     .about =
         "Text to calibrate with; JSON lines (.jsonl), a text or a conversation each; or token "
         "ids in .npy or .json. Given several times, each file gives a share of the windows "
         "by its weight (1 unless said).",
     .section = "Calibration"},
    {"hessians", 0, NYB_OPTION_PATH, INTO(hessians), .value = "FILE",
     .about = "Solve with the Hessians in this store (nybble calibrate --hessians) instead of "
              "running the model over text: minutes become seconds. Every layer is then solved for "
              "the inputs that the unrounded model gives it."},
    {"text-field", 0, NYB_OPTION_TEXT, INTO(text_field), .value = "NAME",
     .about = "Where the text of a JSON line is.", .shown_default = "text"},
    {"chat", 0, NYB_OPTION_FLAG, INTO(chat),
     .about = "The files are JSON lines of conversations ({\"messages\": [{\"role\": ..., "
              "\"content\": ...}, ...]}), which go through the model's chat template."},
    {"loss-mask", 0, NYB_OPTION_CHOICE, INTO(loss_mask), .choices = loss_masks, .value = "WHICH",
     .about = "Which tokens count in the Hessians. assistant: only what the assistant says."},
    {"pack", 0, NYB_OPTION_SWITCH, INTO(pack),
     .about = "Put documents one behind the other and cut the whole into windows. --no-pack: each "
              "document, or as much of it as a window holds, is a sample of its own."},
    NYB_SAMPLING_OPTIONS(nyb_quantizing, sampling),
    {"expert-calibration", 0, NYB_OPTION_CHOICE, INTO(expert_calibration),
     .choices = nyb_expert_tokens, .value = "TOKENS",
     .about = "Tokens that an expert's layers are calibrated on: those routed to it, or all."},
    {"expert-min-tokens", 0, NYB_OPTION_SIZE, INTO(expert_min_tokens), .value = "N", .min = 1,
     .max = 1e9, .about = "Calibration tokens that an expert needs."},
    {"expert-fallback", 0, NYB_OPTION_CHOICE, INTO(expert_fallback), .choices = fallbacks,
     .value = "WHAT",
     .about = "What is done with an expert that has fewer: error stops the run and names it, rtn "
              "rounds it to nearest and lists it in the report."},
    {"format", 'f', NYB_OPTION_CHOICE, NYB_INTO(nyb_quantizing, format), .choices = formats,
     .value = "FORMAT",
     .about =
         "How weights are packed. compressed-tensors (pack-quantized) is read by vLLM at 2 to "
         "8 bits and by transformers; gptq (v1) by the GPTQ family; gptq_v2 by GPTQModel; fp8 by "
         "vLLM and transformers, with --method float8; "
         "awq (4 bits) by vLLM and AutoAWQ; "
         "gguf:TYPE "
         "is one file for llama.cpp, by --method rtn as llama-quantize rounds, or by gptq on the "
         "type's own grid.",
     .section = "Output"},
    {"imatrix-in", 0, NYB_OPTION_PATH, INTO(imatrix_in), .value = "FILE",
     .about = "llama.cpp's importance matrix (imatrix.gguf): plain rounding to a GGUF file then "
              "weighs each input's error, as llama-quantize does it."},
    {"imatrix", 0, NYB_OPTION_PATH, INTO(imatrix), .value = "FILE",
     .about = "Also write llama.cpp's importance matrix: sums of squares of every layer's inputs."},
    {"shard-size", 0, NYB_OPTION_BYTES, INTO(shard_size), .value = "BYTES",
     .about = "Largest tensor file."},
    {"force", 0, NYB_OPTION_FLAG, INTO(force),
     .about = "Replace a folder that nybble made before, or an interrupted run's."},
    {"resume", 0, NYB_OPTION_FLAG, INTO(resume),
     .about = "Go on where an interrupted run with the same settings stopped."},
    {0}};

static unsigned given_settings(const nyb_call *call)
{
    static const struct {
        const char *option;
        unsigned setting;
    } pairs[] = {
        {"method", NYB_SETTING_METHOD},
        {"weight-bits", NYB_SETTING_BITS},
        {"group-size", NYB_SETTING_GROUP_SIZE},
        {"asymmetric", NYB_SETTING_SYMMETRIC},
        {"symmetric", NYB_SETTING_SYMMETRIC},
        {"activation-order", NYB_SETTING_ORDER},
        {"static-groups", NYB_SETTING_STATIC_GROUPS},
        {"scale-search", NYB_SETTING_SCALE_SEARCH},
        {"hessian-damping", NYB_SETTING_DAMPING},
        {"refine", NYB_SETTING_REFINE},
        {"activations", NYB_SETTING_ACTIVATIONS},
        {"activation-range", NYB_SETTING_INPUT_RANGE},
        {"activation-percentile", NYB_SETTING_INPUT_PERCENTILE},
        {"range", NYB_SETTING_RANGE},
        {"percentile", NYB_SETTING_PERCENTILE},
        {"float8-type", NYB_SETTING_FLOAT8_TYPE},
        {"float8-scales", NYB_SETTING_FLOAT8_SCALES},
    };
    unsigned given = 0;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        given |= nyb_call_given(call, pairs[i].option) ? pairs[i].setting : 0;
    return given;
}

static nyb_samples_params samples_of(const nyb_call *call)
{
    const nyb_quantizing *const o = call->options;
    nyb_samples_params samples = nyb_sampling_params(call, &o->sampling);
    samples.per_document = !o->pack;
    samples.chat = o->chat;
    samples.loss_mask = (nyb_loss_mask) o->loss_mask;
    samples.text_field = o->text_field;
    return samples;
}

nyb_quantize_params nyb_quantizing_params(const nyb_call *call)
{
    const nyb_quantizing *const o = call->options;
    return (nyb_quantize_params){
        .model = call->operands[0],
        .out = o->output,
        .format = nyb_call_given(call, "format") ? formats[o->format] : NULL,
        .recipe = o->recipe,
        .keras_config = o->config,
        .settings = {.method = (nyb_method) o->method,
                     .bits = (unsigned) o->weight_bits,
                     .group_size = o->group_size > 0 ? (size_t) o->group_size : 0,
                     .symmetric = !o->asymmetric,
                     .scale_search = o->scale_search,
                     .order = (nyb_gptq_order) o->order,
                     .static_groups = o->static_groups,
                     .damping = o->damping,
                     .refine = (unsigned) o->refine,
                     .range = {(nyb_range) o->range, o->percentile},
                     .activations = (nyb_activation_kind) o->activations,
                     .input_range = {(nyb_range) o->input_range, o->input_percentile},
                     .float8_type = (nyb_code_kind) (o->float8_type + NYB_CODE_E4M3),
                     .float8_scales = (nyb_scales) o->float8_scales},
        .given = given_settings(call),
        .objective = (nyb_objective) o->objective,
        .objective_strength = o->objective_strength,
        .objective_step = o->objective_step,
        .embedding = nyb_call_given(call, "embedding") ? outer_methods[o->embedding] : NULL,
        .head = nyb_call_given(call, "head") ? outer_methods[o->head] : NULL,
        .samples = samples_of(call),
        .hessians = o->hessians,
        .experts = {.calibration = (nyb_expert_calibration) o->expert_calibration,
                    .min_tokens = o->expert_min_tokens,
                    .fallback = (nyb_expert_fallback) o->expert_fallback},
        .imatrix_in = o->imatrix_in,
        .imatrix = o->imatrix,
        .shard_bytes = o->shard_size,
        .force = o->force,
        .resume = o->resume,
        .command = call->line,
    };
}
