// arch.h - model families as data: what their tensors are called and which switches of the
// configuration they have. What a switch does is in config.c; which stages a block has, in plan.c.
// A new family is an entry in arch.c and, at most, one new block part.
#ifndef NYB_MODEL_ARCH_H_
#define NYB_MODEL_ARCH_H_

#include <stdbool.h>
#include <stddef.h>

// A switch: config.json's `key`, or `otherwise` where the file does not say. Without a key it is
// always `otherwise`.
typedef struct nyb_flag {
    const char *key;
    bool otherwise;
} nyb_flag;

typedef enum nyb_norm_kind {
    NYB_NORM_RMS = 0,  // gain * x / rms(x)
    NYB_NORM_RMS_PLUS, // (1 + gain) * x / rms(x)
    NYB_NORM_LAYER,    // gain * (x - mean) / deviation + bias
} nyb_norm_kind;

// Which rows of q and k are normalised before they are turned.
typedef enum nyb_qk_norm {
    NYB_QK_NONE = 0,
    NYB_QK_HEAD, // every head, with the gains of one head
    NYB_QK_ALL,  // all heads as one row
    NYB_QK_UNIT, // every head, without gains, after it was turned; use_qk_norm
} nyb_qk_norm;

// How the outputs of a fused q/k/v are laid out.
typedef enum nyb_qkv_order {
    NYB_QKV_FLAT = 0, // all q heads, all k heads, all v heads
    NYB_QKV_GROUPED,  // for each k head: its q heads, k, v
} nyb_qkv_order;

// Which blocks see a sliding window when 'layer_types' does not say.
typedef enum nyb_pattern_kind {
    NYB_WINDOW_NONE = 0,
    NYB_WINDOW_ALL,        // every block
    NYB_WINDOW_LATE,       // from max_window_layers on
    NYB_WINDOW_EARLY_EVEN, // every other block up to max_window_layers
    NYB_WINDOW_PATTERN,    // all but every n-th; n is `pattern`, or sliding_window_pattern
    NYB_WINDOW_UNTURNED,   // the blocks without rotary positions
    NYB_WINDOW_CHUNKS,     // chunks of attention_chunk_size in the blocks with rotary positions
} nyb_pattern_kind;

typedef enum nyb_positions_kind {
    NYB_POSITIONS_ROPE = 0,
    NYB_POSITIONS_LEARNED,
} nyb_positions_kind;

// How scores become the experts' weights.
typedef enum nyb_routing {
    NYB_ROUTE_SOFTMAX = 0, // softmax over all experts, then the best
    NYB_ROUTE_SIGMOID,     // sigmoid of each; the best by sigmoid + correction
    NYB_ROUTE_INPUT,       // the best; sigmoid of each scales the expert's input
} nyb_routing;

// Experts. Names are inside the block.
typedef struct nyb_arch_experts {
    const char *count_key;        // NULL: the family has none
    const char *router;           // "mlp.gate"
    const char *correction;       // tensor added to the scores that choose
    const char *experts;          // "mlp.experts."; an index and a dot follow
    const char *gate, *up, *down; // inside an expert
    const char *fused_gate_up;    // [experts, in, 2 out] in one tensor; NULL: never
    const char *fused_down;       // [experts, in, out]
    const char *shared;           // "mlp.shared_expert."
    const char *shared_gate;      // a row whose sigmoid scales the shared expert's output
    nyb_routing routing;
    nyb_flag normalize;   // weights of the chosen ones are divided by their sum
    bool always_grouped;  // n_group and topk_group; else by topk_method
    bool group_by_two;    // a group counts as its two best, else as its best
    size_t default_top_k; // num_experts_per_tok
} nyb_arch_experts;

// Multi-head latent attention: low-rank q (optional) and k/v.
typedef struct nyb_arch_latent {
    const char *q_a, *q_norm, *q_b; // q_lora_rank
    const char *kv_a, *kv_norm, *kv_b;
} nyb_arch_latent;

// The head of a sequence classifier, on the first token: dense, activation, out.
typedef struct nyb_arch_classifier {
    const char *dense, *out; // full names
    const char *activation;
} nyb_arch_classifier;

typedef struct nyb_arch {
    const char *model_type; // as config.json spells it
    const char *about;      // families that are this one, for lists
    // Of entries with one model_type the first counts whose switches all are as asked.
    struct {
        const char *key;
        int value, otherwise; // otherwise: when the file does not say
    } when[2];

    // Names. All but those that say "full" follow the prefix, which a file may leave out.
    const char *prefix;    // "model."
    const char *embedding; // modules
    const char *position, *token_type, *embedding_norm;
    const char *project_in, *project_out;
    const char *block; // "layers.": an index and a dot follow
    const char *final_norm;
    const char *head;           // full
    const char *const *ignored; // ends of names of tensors that follow from others; ends with NULL
    const char *gain, *bias;    // of norms; NULL: "weight", "bias"
    nyb_arch_classifier classifier;

    // Names inside a block. NULL: there is none.
    const char *attention_norm, *attention_post_norm;
    const char *q, *k, *v, *qkv, *o;
    const char *q_norm, *k_norm;
    const char *mlp_norm, *mlp_post_norm; // mlp_norm NULL with a pre-norm: the attention's
    const char *gate, *up, *gate_up, *down;
    nyb_arch_latent latent; // kv_a NULL: plain attention
    nyb_arch_experts experts;

    // Switches.
    nyb_norm_kind norm;
    nyb_flag pre_norm; // norms before attention and MLP; false: of the sum after them
    bool post_only;    // neither: the only norms are those of the outputs
    nyb_flag parallel; // attention and MLP read the same residual
    nyb_flag tied;     // the head is the embedding
    nyb_flag qkv_bias, o_bias, mlp_bias;
    nyb_qkv_order qkv_order;
    nyb_qk_norm qk_norm;
    nyb_positions_kind positions;
    size_t position_offset;   // learned positions start at this row
    bool positions_after_pad; // they count tokens that are not pad_token_id, from there on
    bool bidirectional;
    nyb_flag alibi;
    nyb_flag interleaved; // the rope turns neighbours, not halves
    nyb_pattern_kind window;
    bool window_asked;       // only where use_sliding_window is true
    size_t default_window;   // when config.json does not mention it; 0: none
    size_t pattern;          // NYB_WINDOW_PATTERN
    bool multi_query;        // the key multi_query: one k head
    bool two_ropes;          // rope_local_base_freq for the blocks with a window
    bool skips_rope;         // no_rope_layers
    bool conv1d;             // weights are stored [in, out]
    bool scaled_embedding;   // by the square root of the width
    bool query_scalar;       // query_pre_attn_scalar
    bool scale_by_block;     // scale_attn_by_inverse_layer_idx, scale_attn_weights
    bool tuned;              // attn_temperature_tuning
    const char *activation;  // when config.json does not say
    double eps, theta;       // likewise; 0: 1e-6 (RMS) or 1e-5 (layer); 10000
    double rotary;           // partial_rotary_factor likewise; 0: always all of a head
    size_t default_kv_heads; // likewise; 0: as many as heads
} nyb_arch;

// The table's entries, for lists; NULL past the end.
const nyb_arch *nyb_arch_at(size_t index);

#endif // NYB_MODEL_ARCH_H_
