// binding.h - tensors of an opened model that only the forward pass reads.
#ifndef NYB_MODEL_BINDING_H_
#define NYB_MODEL_BINDING_H_

#include "core/arena.h"
#include "kernels/weight.h"
#include "model/model.h"

// Tensors beside the blocks. NULL: there is none.
typedef struct nyb_outer {
    nyb_linear embedding;
    const nyb_tensor *position, *token_type;
    const nyb_tensor *embedding_norm, *embedding_norm_bias;
    const nyb_tensor *final_norm, *final_norm_bias;
    nyb_linear project_in, project_out; // weight NULL: none
    nyb_linear dense;                   // of a classifier
} nyb_outer;

// One block: its stages, linears and small tensors.
typedef struct nyb_bound_block {
    size_t stage_count, linear_count;
    nyb_stage *stages;
    nyb_linear *linears;
    const nyb_tensor *vectors[NYB_VECTORS];
} nyb_bound_block;

// Columns of the stages' outputs, one after the other for each token.
typedef struct nyb_columns {
    size_t q, k, v; // of attention: heads * head_dim, then kv_heads of each
    size_t out;     // of attention's output
    size_t q_rank, kv_rank, kv;
    size_t work;                       // the widest of all that come and go
    size_t start, routed, sum, scores; // what has to outlast a stage lies behind it
    size_t count;
} nyb_columns;

struct nyb_model {
    nyb_arena arena; // everything that has no owner of its own
    const char *folder;
    nyb_model_config config;
    nyb_checkpoint *checkpoint;
    nyb_quantization *quantization;
    const char *prefix; // of names: the family's, or "" in files that leave it out
    nyb_outer outer;
    nyb_bound_block *blocks; // [config.blocks]
    nyb_linear head;
    bool head_tied;              // its weight is the embedding's
    nyb_qweight embedding_codes; // of a quantised embedding
    nyb_lowbit head_codes;       // of a quantised head
    float *head_floats;          // [rows, cols] instead, where its codes are floats
    void *head_input;            // of nyb_weight_input_bytes()
};

// Columns of f32 that an operand of `width` columns takes in a row of nyb_batch.wide.
size_t nyb_operand_columns(nyb_dtype operands, size_t width);

// `operands`: of nyb_batch. Attention's columns do not depend on it.
nyb_columns nyb_columns_of(const nyb_model_config *config, nyb_dtype operands);

// Small tensor `vector` of the block, NULL where there is none.
const nyb_tensor *nyb_vector_at(const nyb_model *model, size_t block, nyb_vector vector);

const nyb_outer *nyb_model_outer(const nyb_model *model);

// Row `id` of the embedding, out [1, embed_dim].
//
// NYB_E_NUMERIC  as nyb_tensor_widen().
NYB_NODISCARD nyb_status nyb_model_embed(const nyb_model *model, size_t id, nyb_mat out,
                                         nyb_err *err);

// The head as it is multiplied; floats are not checked. Neither floats nor codes: its rows have to
// be widened.
nyb_weight nyb_model_head_weight(const nyb_model *model);

// The head's input for a product with one vector x, which has to stay. Overwritten by the next
// call for this model.
nyb_weight_input nyb_model_head_input(const nyb_model *model, const float *x);

// Sets out->prefix, and finds every tensor beside and inside the blocks.
NYB_NODISCARD nyb_status nyb_bind_outer(nyb_model *m, nyb_err *err);
NYB_NODISCARD nyb_status nyb_bind_block(nyb_model *m, size_t block, nyb_err *err);

// The full name of a norm's gains or biases, which are called gamma and beta in old files.
const char *nyb_norm_part(nyb_model *m, const char *module, bool bias);

// Finds a tensor, and checks its type and shape; cols 0: a vector.
NYB_NODISCARD nyb_status nyb_bind_tensor(const nyb_tensor **out, nyb_model *m, const char *name,
                                         size_t rows, size_t cols, nyb_err *err);

// Fills in where the weight and the bias of out->module are. `biased`: it has to have one.
NYB_NODISCARD nyb_status nyb_bind_linear(nyb_linear *out, nyb_model *m, bool biased, nyb_err *err);

// A tensor that nobody reads would be a part of the model that is silently left out.
NYB_NODISCARD nyb_status nyb_check_leftovers(const nyb_model *m, nyb_err *err);

// Widens rows [row0, row0 + out.rows) of the matrix of a layer that is not quantised.
NYB_NODISCARD nyb_status nyb_linear_widen(const nyb_linear *linear, size_t row0, nyb_mat out,
                                          nyb_err *err);

#endif // NYB_MODEL_BINDING_H_
