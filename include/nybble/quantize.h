// quantize.h - compresses a whole checkpoint: calibrates it block by block, rounds every linear
// layer of the blocks, and writes a checkpoint that the ecosystem's readers load.
//
// Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
//         Generative Pre-trained Transformers", arXiv:2210.17323; the order of work is its
//         "true sequential" one: a layer sees the inputs that the layers before it give after
//         they were rounded.
#ifndef NYB_QUANTIZE_H_
#define NYB_QUANTIZE_H_

#include "nybble/activations.h"
#include "nybble/context.h"
#include "nybble/float8.h"
#include "nybble/samples.h"
#include "nybble/solve.h"

// How one layer is rounded.
typedef struct nyb_settings {
    bool skip; // leave the layer as it is
    nyb_method method;
    nyb_dtype block;   // a layer of a GGUF file: its type, of which bits and groups follow
    unsigned bits;     // 2, 3, 4, 8
    size_t group_size; // columns that share a scale, 0: the whole row
    bool symmetric;
    bool scale_search; // least squared error instead of the extremes
    nyb_gptq_order order;
    bool static_groups;
    double damping;            // of the mean diagonal of the Hessian, (0, 1)
    unsigned refine;           // rounds of refinement after the GPTQ pass, [0, 100]
    nyb_code_kind float8_type; // NYB_CODE_E4M3 or NYB_CODE_E5M2
    nyb_scales float8_scales;
    nyb_range_params range;          // of the weights
    nyb_activation_kind activations; // what readers are to round the layer's input to
    nyb_range_params input_range;    // of inputs with a static scale
} nyb_settings;

#define NYB_SETTINGS_DEFAULTS                                                                      \
    ((nyb_settings){.method = NYB_METHOD_GPTQ,                                                     \
                    .bits = 4,                                                                     \
                    .group_size = 128,                                                             \
                    .symmetric = true,                                                             \
                    .order = NYB_ORDER_GROUP,                                                      \
                    .damping = 0.01,                                                               \
                    .refine = NYB_GPTQ_REFINE,                                                     \
                    .float8_type = NYB_CODE_E4M3})

// Names a setting in nyb_quantize_params.given.
enum nyb_setting {
    NYB_SETTING_METHOD = 1u << 0,
    NYB_SETTING_BITS = 1u << 1,
    NYB_SETTING_GROUP_SIZE = 1u << 2,
    NYB_SETTING_SYMMETRIC = 1u << 3,
    NYB_SETTING_SCALE_SEARCH = 1u << 4,
    NYB_SETTING_ORDER = 1u << 5,
    NYB_SETTING_STATIC_GROUPS = 1u << 6,
    NYB_SETTING_DAMPING = 1u << 7,
    NYB_SETTING_FLOAT8_TYPE = 1u << 8,
    NYB_SETTING_FLOAT8_SCALES = 1u << 9,
    NYB_SETTING_RANGE = 1u << 10,
    NYB_SETTING_PERCENTILE = 1u << 11,
    NYB_SETTING_REFINE = 1u << 12,
    NYB_SETTING_ACTIVATIONS = 1u << 13,
    NYB_SETTING_INPUT_RANGE = 1u << 14,
    NYB_SETTING_INPUT_PERCENTILE = 1u << 15,
};

// Which tokens an expert's layers are calibrated on.
typedef enum nyb_expert_calibration {
    NYB_EXPERTS_ROUTED = 0, // those that the router sends to it
    NYB_EXPERTS_ALL,        // all of them; the outputs are still the routed ones
} nyb_expert_calibration;

// What happens to an expert with too few calibration tokens.
typedef enum nyb_expert_fallback {
    NYB_EXPERTS_ERROR = 0, // the run fails and names it
    NYB_EXPERTS_RTN,       // its layers are rounded to nearest, and the report lists them
} nyb_expert_fallback;

typedef struct nyb_expert_params {
    nyb_expert_calibration calibration;
    size_t min_tokens; // 0: 1
    nyb_expert_fallback fallback;
} nyb_expert_params;

// What GPTQ brings a layer's output near to.
typedef enum nyb_objective {
    NYB_OBJECTIVE_LAYER = 0, // what the layer gives on the inputs that it will see
    NYB_OBJECTIVE_MODEL,     // what it gave on the unrounded model's inputs; see nyb_gptq_target()
} nyb_objective;

enum { NYB_OBJECTIVE_STEP_MOST = 16 };

typedef struct nyb_quantize_params {
    const char *model;  // Hugging Face folder, or a Keras checkpoint (docs/keras.md); read only
    const char *out;    // folder to be made; for a Keras checkpoint, one of the same kind
    const char *format; // a weight layout's name, NULL: "compressed-tensors"
    const char *recipe; // JSON file, NULL: none
    const char *keras_config; // JSON file with the configuration of .weights.h5, NULL: none

    // Settings of every layer. Those named in `given` win over the recipe's general settings;
    // the recipe's settings for a pattern of layers win over both.
    nyb_settings settings;
    unsigned given;

    // How embedding and output head are rounded: "rtn", "int4", "int8", "float8"; "none": not at
    // all; NULL: as the recipe says, or else not at all. Where the two share one tensor, the output
    // has two: a head of its own, rounded like the embedding unless something else is asked for.
    const char *embedding, *head;

    nyb_objective objective;
    double objective_strength; // of NYB_OBJECTIVE_MODEL, [0, 1]
    size_t objective_step;     // likewise: the unrounded model runs on every so-manieth part of the
                               // samples, [1, NYB_OBJECTIVE_STEP_MOST]

    nyb_samples_params samples; // .path NULL: no calibration data (enough for rtn and int4)
    // A store of Hessians (calibrate.h) in place of calibration data: no forward pass is run, every
    // layer is solved for the inputs that the unrounded model gives it. NULL: none.
    const char *hessians;
    nyb_expert_params experts; // of models that have them
    const char *imatrix_in;    // llama.cpp's importance matrix, to round a GGUF file by; NULL: none
    const char *imatrix;       // file for llama.cpp's importance matrix of the inputs, NULL: none
    size_t shard_bytes;        // of one output file, 0: 5 GB
    bool force;                // replace an existing output folder
    bool resume;               // go on with what an interrupted run left behind
    const char *command;       // that asked for the run, kept in the report; UTF-8, NULL: unknown
} nyb_quantize_params;

#define NYB_QUANTIZE_DEFAULTS                                                                      \
    ((nyb_quantize_params){.settings = NYB_SETTINGS_DEFAULTS,                                      \
                           .objective_strength = 0.5,                                              \
                           .objective_step = 1,                                                    \
                           .samples = NYB_SAMPLES_DEFAULTS})

// What a finished run has to say; the rest is in OUT/nybble_report.json.
typedef struct nyb_quantize_result {
    size_t layers;          // rounded linear layers
    size_t samples, tokens; // used for calibration
    // Of the rounded layers: 8 times the bytes that the output has for their matrices, codes, scales,
    // zero points and group indices, and not for biases, over the number of weights.
    double bits_per_weight;
    size_t bytes_in, bytes_out; // tensor files
    double loss, rtn_loss;      // sums of the layers' losses, rtn_loss is plain rounding's
    double seconds;
    size_t resumed_blocks; // taken over from an interrupted run
} nyb_quantize_result;

// Quantises params->model into params->out. With NYB_COMPUTE_AUTO, calibration is made of bf16 for
// models whose weights are bf16 on CPUs that have products of bf16, else of f32.
//
// The output is written into "OUT.partial" and renamed when it is complete, synced, read back
// and found equal, bit for bit, to what was solved. A run that is interrupted leaves OUT.partial
// behind, from which `resume` goes on: finished blocks are kept, and the result has the same
// bytes as that of a run without interruption. Holds, at any time, one block's weights in f32,
// one Hessian and its factor, and the calibration tokens' activations; what ctx->memory_bytes has
// no room for of the latter lies in a nameless file in OUT.partial. The bytes do not depend on
// that.
//
// NYB_E_ARG          a setting is outside its range, calibration data is needed and missing, or the
//                    store of Hessians is of another model or made with other settings.
// NYB_E_EXISTS       out is there (see force), or OUT.partial is (see resume and force).
// NYB_E_IO           a file operation failed, for example because the disk is full.
// NYB_E_FORMAT       an input file breaks its format.
// NYB_E_UNSUPPORTED  the architecture is unknown, or the layout cannot hold what is asked for.
// NYB_E_NUMERIC      a weight or an activation is NaN or infinite.
// NYB_E_NOT_PD       a Hessian could not be factored at any allowed damping.
// NYB_E_VERIFY       what was read back differs from what was solved.
// NYB_E_NOMEM        memory ran out, or ctx->memory_bytes is less than the least the run needs.
// On an error nothing is at `out`; OUT.partial stays only if it has finished blocks in it.
NYB_API NYB_NODISCARD nyb_status nyb_quantize(const nyb_context *ctx,
                                              const nyb_quantize_params *params,
                                              nyb_quantize_result *result, nyb_err *err);

// What a run would take, without running it.
typedef struct nyb_quantize_plan {
    size_t layers, blocks;
    size_t samples, sequence_length, tokens;
    size_t activation_bytes, weight_bytes, hessian_bytes, other_bytes, memory_bytes; // at the peak
    size_t spill_bytes; // of activations that the ceiling sends to disk while the run lasts
    size_t disk_bytes;  // of the output
    double forward_flops, hessian_flops, factor_flops, solve_flops;
    // Measured on this machine for a moment: products of the solver, in f32, and those of the forward
    // pass and the Hessians, in what the run computes in.
    double gemm_flops_per_second, product_flops_per_second;
    double seconds;         // estimate from the above
    double bits_per_weight; // as in nyb_quantize_result
} nyb_quantize_plan;

// Plans nyb_quantize() with the same parameters. The calibration data is read and tokenized.
// Errors as nyb_quantize(); nothing is written.
NYB_API NYB_NODISCARD nyb_status nyb_quantize_planned(const nyb_context *ctx,
                                                      const nyb_quantize_params *params,
                                                      nyb_quantize_plan *plan, nyb_err *err);

#endif // NYB_QUANTIZE_H_
