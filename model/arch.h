// arch.h - model architectures as data: which linears a block has, how they are grouped into
// stages, what comes before and after each stage, and what the tensors are called.
//
// A block is a list of stages. A stage is the linears that share one input; `input` says where
// that input comes from and `then` what happens to their outputs. A new architecture is an entry
// in arch.c and, at most, one new kind of input or follow-up in forward.c.
#ifndef NYB_MODEL_ARCH_H_
#define NYB_MODEL_ARCH_H_

#include <stdbool.h>
#include <stddef.h>

enum { NYB_STAGES = 4, NYB_STAGE_LINEARS = 4, NYB_LINEARS = 16 };

// Widths that a configuration gives numbers to.
typedef enum nyb_extent {
    NYB_EXTENT_HIDDEN = 0,
    NYB_EXTENT_QUERY, // heads * head_dim
    NYB_EXTENT_KEY,   // kv_heads * head_dim
    NYB_EXTENT_INTERMEDIATE,
} nyb_extent;

// Which switch of the configuration decides whether a linear has a bias.
typedef enum nyb_bias_switch {
    NYB_BIAS_NEVER = 0,
    NYB_BIAS_ATTENTION, // attention_bias
    NYB_BIAS_MLP,       // mlp_bias
} nyb_bias_switch;

// What happens to a stage's outputs.
typedef enum nyb_then {
    NYB_THEN_ATTENTION = 0, // q, k, v: rotate q and k, attend; the next stage reads the result
    NYB_THEN_GATE,          // gate, up: the next stage reads act(gate) * up
    NYB_THEN_RESIDUAL,      // one linear: its output is added to the residual stream
} nyb_then;

typedef struct nyb_arch_linear {
    const char *name; // inside the block: "self_attn.q_proj"
    nyb_extent rows;
    nyb_bias_switch bias;
} nyb_arch_linear;

typedef struct nyb_arch_stage {
    const char *norm; // of the residual stream, inside the block; NULL: the last stage's result
    nyb_extent width; // of the input
    nyb_then then;
    nyb_arch_linear linears[NYB_STAGE_LINEARS]; // ends with one without a name, or full
} nyb_arch_stage;

typedef struct nyb_arch {
    const char *model_type; // as config.json spells it
    const char *about;      // families that are this one, for lists
    const char *embedding;  // module names
    const char *block;      // "model.layers.": an index and a dot follow
    const char *final_norm;
    const char *head;
    bool window;             // sliding_window is honoured
    size_t default_window;   // when config.json does not mention it; 0: none
    size_t default_kv_heads; // likewise; 0: as many as heads
    bool biases;             // attention_bias and mlp_bias are honoured
    size_t stage_count;
    nyb_arch_stage stages[NYB_STAGES];
} nyb_arch;

// NULL for a model_type that is not in the table.
const nyb_arch *nyb_arch_find(const char *model_type);

// The table's entries, for lists; NULL past the end.
const nyb_arch *nyb_arch_at(size_t index);

// How many linears the stage has.
size_t nyb_arch_linears(const nyb_arch_stage *stage);

#endif // NYB_MODEL_ARCH_H_
