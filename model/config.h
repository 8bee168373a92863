// config.h - what config.json says about a model, checked and with its defaults filled in.
#ifndef NYB_MODEL_CONFIG_H_
#define NYB_MODEL_CONFIG_H_

#include "core/json.h"
#include "model/activation.h"
#include "model/arch.h"
#include "model/config_misses.h"

enum {
    NYB_EOS_MAX = 16,
    NYB_BLOCKS_MAX = 4096,
    NYB_ROPES = 2,          // for blocks with and without a window
    NYB_ROPE_FACTORS = 256, // pairs with factors of their own
    NYB_EXPERT_GROUPS = 256,
};

typedef enum nyb_rope_kind {
    NYB_ROPE_DEFAULT = 0,
    NYB_ROPE_LINEAR,
    NYB_ROPE_LLAMA3,
    NYB_ROPE_DYNAMIC,
    NYB_ROPE_YARN,
    NYB_ROPE_LONGROPE,
} nyb_rope_kind;

// What config.json calls a kind; NULL behind the last.
typedef struct nyb_rope_name {
    const char *text;
    nyb_rope_kind kind;
} nyb_rope_name;
const nyb_rope_name *nyb_rope_name_at(size_t index);

// Rotary positions. Su et al., "RoFormer", arXiv:2104.09864; the scalings as transformers has
// them.
typedef struct nyb_rope_config {
    nyb_rope_kind kind;
    double theta;               // > 0
    size_t dims;                // of a head that are turned, from the first on; even
    double factor;              // all but the default: > 0
    double low_freq, high_freq; // llama3: 0 < low < high
    double original_positions;  // llama3, dynamic, yarn, longrope: > 0
    double fast, slow;          // yarn: turns over the original positions
    bool whole;                 // yarn: the bounds are whole numbers
    double magnitude;           // of the cosines and sines
    double score_magnitude;     // of the attention's scores, where the family asks for it
    float short_factors[NYB_ROPE_FACTORS], long_factors[NYB_ROPE_FACTORS]; // longrope
} nyb_rope_config;

// What differs from block to block.
typedef enum nyb_block_trait {
    NYB_BLOCK_WINDOW = 1,  // attends to `window` positions
    NYB_BLOCK_CHUNKS = 2,  // attends inside chunks of `window` positions
    NYB_BLOCK_NO_ROPE = 4, // positions are not turned
    NYB_BLOCK_EXPERTS = 8, // experts instead of an MLP
} nyb_block_trait;

typedef struct nyb_experts_config {
    size_t count; // 0: none
    size_t top_k, width;
    size_t shared_width;        // 0: none
    size_t groups, best_groups; // groups 1: all experts are one group
    bool normalize;
    double scale; // of the weights
} nyb_experts_config;

// Multi-head latent attention; kv_rank 0: none.
typedef struct nyb_latent_config {
    size_t q_rank; // 0: q is one matrix
    size_t kv_rank, plain, turned;
} nyb_latent_config;

typedef struct nyb_model_config {
    const nyb_arch *arch;
    size_t hidden, blocks, heads, kv_heads, head_dim, intermediate, vocab; // all >= 1
    size_t value_dim;                                                      // of a head's output
    size_t embed_dim; // of embeddings and head; other than hidden only with projections
    size_t positions; // max_position_embeddings: of learned ones the most there are
    size_t window;    // a token attends to itself and window - 1 before it; 0: to all before it
    unsigned char traits[NYB_BLOCKS_MAX];
    double norm_eps;
    bool pre_norm, parallel, no_norm_gains, no_final_norm;
    bool tied; // the output head is the embedding
    bool qkv_bias, o_bias, mlp_bias;
    nyb_activation activation;
    bool qk_norm;                                          // as the family does it
    double score_scale, score_cap, logit_cap, embed_scale; // caps: 0: none
    bool alibi, interleaved;
    bool scale_by_block;              // scores are divided by the block's number
    double tune_scale, tune_floor;    // of queries in blocks without rope; scale 0: none
    size_t rope_count;                // 0: no rotary positions
    nyb_rope_config ropes[NYB_ROPES]; // [1]: blocks with a window, when there are two
    nyb_latent_config latent;
    nyb_experts_config experts;
    size_t extra_blocks; // further ones in the file that the forward pass does not run
    size_t token_types;
    size_t labels; // of a sequence classifier; 0: a language model, or bare
    bool wrapped;  // inside a multimodal model
    bool bare;     // an encoder without a head: its outputs are its last states
    bool has_bos, has_pad;
    size_t bos, pad;
    size_t eos_count;
    size_t eos[NYB_EOS_MAX];
    nyb_dtype dtype; // declared storage type; f32 when the file does not say
} nyb_model_config;

// Reads a parsed config.json; `name` stands for it in errors. Features that nybble does not compute
// are errors, never ignored.
//
// NYB_E_FORMAT       a value is missing, of the wrong kind, or outside its range.
// NYB_E_UNSUPPORTED  an architecture, activation, rope type or feature that is not supported;
//                    err names all that are missing.
// On every error *out is undefined.
NYB_NODISCARD nyb_status nyb_model_config_read(nyb_model_config *out, const json_t *doc,
                                               const char *name, nyb_err *err);

// The same, but what is not supported is added to `misses` and no error. out->arch is NULL for a
// family that is not known, and all else is defined only if there are no misses.
NYB_NODISCARD nyb_status nyb_model_config_look(nyb_model_config *out, nyb_misses *misses,
                                               const json_t *doc, const char *name, nyb_err *err);

// Replaces the end-of-sequence ids by those of a JSON value: an id, or a list of them.
NYB_NODISCARD nyb_status nyb_eos_read(nyb_model_config *out, const json_t *value, const char *name,
                                      nyb_err *err);

bool nyb_config_has(const nyb_model_config *config, size_t block, nyb_block_trait trait);

#endif // NYB_MODEL_CONFIG_H_
