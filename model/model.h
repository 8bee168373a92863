// model.h - an opened model: its configuration, its mapped checkpoint, and every tensor that the
// forward pass reads, found and checked. Plus one block's weights.
#ifndef NYB_MODEL_MODEL_H_
#define NYB_MODEL_MODEL_H_

#include "core/arena.h"
#include "formats/quantization.h"
#include "model/config.h"
#include "nybble/context.h"
#include "nybble/qweight.h"

// One linear layer as it lies in the checkpoint: y = x W^T + bias.
typedef struct nyb_linear {
    const char *module;       // "model.layers.3.self_attn.q_proj"
    size_t rows, cols;        // out_features, in_features
    const nyb_tensor *weight; // of a float or block type, mapped; NULL: quantised
    bool transposed;          // weight is [cols, *] instead of [rows, cols]
    size_t slice;             // which matrix of a weight of rank 3
    size_t first;             // its rows start at this column of a transposed weight
    const nyb_tensor *bias;   // [rows] likewise; NULL: none
    bool stray_bias;          // config.json knows nothing of the bias
    bool quantized;
    nyb_code_kind kind; // of a quantised one
    unsigned bits;      // likewise
    size_t group_size;  // likewise; 0: one group a row
    float input_scale; // what its input is divided by where it is rounded; 0: the file does not say
} nyb_linear;

// Small tensors of a block that are no linear layers.
typedef enum nyb_vector {
    NYB_VECTOR_ATTENTION_NORM = 0,
    NYB_VECTOR_ATTENTION_POST,
    NYB_VECTOR_MLP_NORM,
    NYB_VECTOR_MLP_POST,
    NYB_VECTOR_Q_NORM,
    NYB_VECTOR_K_NORM,
    NYB_VECTOR_Q_RANK_NORM,
    NYB_VECTOR_KV_RANK_NORM,
    NYB_VECTOR_NORMS, // the ones above are norms: their biases follow
    NYB_VECTOR_BIASES = NYB_VECTOR_NORMS,
    NYB_VECTOR_ROUTER = 2 * NYB_VECTOR_NORMS, // [experts, hidden]
    NYB_VECTOR_CORRECTION,                    // [experts]
    NYB_VECTOR_SHARED_GATE,                   // [hidden]
    NYB_VECTORS,
} nyb_vector;

// Where a stage's input comes from.
typedef enum nyb_source {
    NYB_FROM_RESIDUAL = 0, // the residual stream
    NYB_FROM_START,        // the residual stream as it was when the block began
    NYB_FROM_WIDE,         // columns of the last stages' outputs
    NYB_FROM_ROUTED,       // the input of the experts, for the tokens sent to one
    NYB_FROM_SHARED,       // the same for all tokens
} nyb_source;

// What happens to a stage's outputs.
typedef enum nyb_then {
    NYB_THEN_KEEP = 0,  // they stay where they are put
    NYB_THEN_ATTENTION, // with what was put there before they are q, k, v: attend
    NYB_THEN_GATE,      // the next stage reads act(gate) * up
    NYB_THEN_ACTIVATE,  // the next stage reads act(output)
    NYB_THEN_RESIDUAL,  // they are added to the residual stream
    NYB_THEN_COLLECT,   // they are added, weighted, to the sum of the experts' outputs
} nyb_then;

// Where the norm of an output goes.
typedef enum nyb_post_kind {
    NYB_POST_NONE = 0,
    NYB_POST_OUTPUT, // before it is added
    NYB_POST_SUM,    // of the residual stream with it
} nyb_post_kind;

enum { NYB_STAGE_LINEARS = 4, NYB_ALL_TOKENS = -1 };

// Linears [first, first + count) of a block read the same input of `width` columns.
typedef struct nyb_stage {
    size_t first, count;
    size_t width;
    nyb_source source;
    size_t column; // NYB_FROM_WIDE: where the input starts
    int norm;      // nyb_vector of the input's norm; -1: none
    nyb_then then;
    size_t out[NYB_STAGE_LINEARS]; // columns of the outputs
    nyb_post_kind post;
    int post_norm;        // nyb_vector
    int expert;           // the tokens sent to this one, or NYB_ALL_TOKENS
    bool shared_gate;     // NYB_THEN_COLLECT: weighted by the shared gate
    bool routes;          // after it, tokens are sent to experts
    bool last_of_experts; // after it, the sum goes to the residual stream
} nyb_stage;

typedef struct nyb_model nyb_model;

// Opens a Hugging Face folder (config.json, the checkpoint, and the quantization settings if it
// has any) or a GGUF file. Nothing is copied; the tensors stay mapped until nyb_model_close().
//
// NYB_E_FORMAT  a tensor is missing, or has the wrong shape: err names it, both shapes, the file.
// NYB_E_UNSUPPORTED  the configuration or its quantization, with all that is missing; or a tensor's
//                    type.
// Others as nyb_json_load(), nyb_model_config_read(), nyb_checkpoint_open(),
// nyb_quantization_load().
// On every error *out is NULL.
NYB_NODISCARD nyb_status nyb_model_open(nyb_model **out, const char *folder, nyb_err *err);

// What config.json of a folder says, without its tensors: *arch is its family, NULL when it is not
// known, and what is not supported goes into `misses` as well as into err.
NYB_NODISCARD nyb_status nyb_model_look(const nyb_arch **arch, nyb_misses *misses,
                                        const char *folder, nyb_err *err);

void nyb_model_close(nyb_model *model); // NULL is fine

// All of these live as long as the model.
const char *nyb_model_folder(const nyb_model *model);
const nyb_model_config *nyb_model_config_of(const nyb_model *model);
const nyb_checkpoint *nyb_model_checkpoint(const nyb_model *model);
const nyb_quantization *nyb_model_quantization(const nyb_model *model); // NULL: none

// The walk sees a block as stages of linears, whatever the architecture. Both counts depend on the
// block where architectures differ from block to block.
size_t nyb_block_count(const nyb_model *model);
size_t nyb_stage_count(const nyb_model *model, size_t block);
nyb_stage nyb_stage_at(const nyb_model *model, size_t block, size_t stage);
size_t nyb_linear_count(const nyb_model *model, size_t block);
const nyb_linear *nyb_linear_at(const nyb_model *model, size_t block, size_t linear);

// The embedding, [vocab, embed_dim], which may be quantised like a linear layer.
const nyb_linear *nyb_model_embedding(const nyb_model *model);
// The output head; its weight is the embedding when they are tied. Of a classifier: its last
// linear layer, [labels, hidden].
const nyb_linear *nyb_model_head(const nyb_model *model);

// Whether the head's weight is the embedding's.
bool nyb_model_head_tied(const nyb_model *model);

// Memory that an opened model holds: a quantised embedding and a quantised head.
size_t nyb_model_outer_bytes(const nyb_model *model);

// Modules that readers take for linear layers and that stay as they are: head, routers, gates,
// projections. Writes their names to `names` (NULL: none) and returns how many there are.
size_t nyb_model_plain_modules(nyb_model *model, const char **names);

// What a folder of the model alone calls a tensor of the checkpoint, in the arena: files may leave
// out the start of names, or have it behind that of a multimodal model. "" for a tensor that is no
// part of the language model, or follows from others. NULL when there is no room.
const char *nyb_model_plain_name(const nyb_model *model, nyb_arena *arena, const char *name);

// One block's weights, in memory of its own that is used for block after block: in f32, or as
// they lie in the file.
typedef struct nyb_block_weights {
    const nyb_model *model;
    size_t index;  // of the loaded block
    size_t floats; // of the memory behind the arrays below
    float *memory;
    nyb_mat *weights;            // [rows, cols] of each linear; the caller may overwrite them
    float **biases;              // [rows] of each linear, NULL: none
    float *vectors[NYB_VECTORS]; // NULL: the block has none
    struct nyb_stored *stored;   // NULL: `weights` are multiplied, else these, and `weights` are
                                 // shapes without memory (model/stored.h)
} nyb_block_weights;

// Bytes that nyb_block_weights_init() allocates. SIZE_MAX when they cannot be counted.
size_t nyb_block_weights_bytes(const nyb_model *model);

// NYB_E_NOMEM  out is zeroed.
NYB_NODISCARD nyb_status nyb_block_weights_init(nyb_block_weights *out, const nyb_model *model,
                                                nyb_err *err);
void nyb_block_weights_clear(nyb_block_weights *weights); // zeroed is fine

// The same for weights that are multiplied as they lie: nothing but norms, biases and packed
// codes takes memory, and what no product can read as it lies. Packed codes are as large as in
// the file.
size_t nyb_block_weights_stored_bytes(const nyb_model *model);
NYB_NODISCARD nyb_status nyb_block_weights_init_stored(nyb_block_weights *out,
                                                       const nyb_model *model, nyb_err *err);

// Reads block `index`: widened from the mapped tensors, or dequantised; or as it lies.
//
// NYB_E_NUMERIC  a NaN or an infinity; err names the tensor and the position.
// Others as nyb_quantization_read(). The content is undefined after an error.
NYB_NODISCARD nyb_status nyb_block_weights_load(const nyb_context *ctx, nyb_block_weights *weights,
                                                size_t index, nyb_err *err);

// Widens rows [row0, row0 + out.rows) of a mapped [*, out.cols] (or, for rank 1, [out.cols])
// tensor of f32, f16, bf16 or a block type.
//
// NYB_E_NUMERIC  a NaN or an infinity; err names the tensor and the position.
NYB_NODISCARD nyb_status nyb_tensor_widen(const nyb_tensor *tensor, size_t row0, nyb_mat out,
                                          nyb_err *err);

// Reads a layer's whole weight into out [rows, cols]: widened, or dequantised.
//
// NYB_E_NUMERIC  as nyb_tensor_widen(). Others as nyb_quantization_read().
NYB_NODISCARD nyb_status nyb_linear_read(const nyb_model *model, const nyb_linear *linear,
                                         nyb_mat out, nyb_err *err);

// Whether a layer's bytes are its matrix, row by row, as f32, f16 or bf16.
bool nyb_linear_is_plain(const nyb_linear *linear);

#endif // NYB_MODEL_MODEL_H_
