// config.h - what config.json says about a model, checked and with its defaults filled in.
#ifndef NYB_MODEL_CONFIG_H_
#define NYB_MODEL_CONFIG_H_

#include "core/json.h"
#include "model/arch.h"

enum { NYB_EOS_MAX = 16 };

typedef enum nyb_rope_kind {
    NYB_ROPE_DEFAULT = 0,
    NYB_ROPE_LINEAR,
    NYB_ROPE_LLAMA3,
} nyb_rope_kind;

// Rotary positions. Su et al., "RoFormer", arXiv:2104.09864; the scalings as transformers has
// them.
typedef struct nyb_rope_config {
    nyb_rope_kind kind;
    double theta;               // > 0
    double factor;              // linear, llama3: > 0
    double low_freq, high_freq; // llama3: 0 < low < high
    double original_positions;  // llama3: > 0
} nyb_rope_config;

typedef struct nyb_model_config {
    const nyb_arch *arch;
    size_t hidden, blocks, heads, kv_heads, head_dim, intermediate, vocab; // all >= 1
    size_t positions; // max_position_embeddings: what the model was made for, not a limit here
    size_t window;    // a token attends to itself and window - 1 before it; 0: to all before it
    double norm_eps;
    bool tied; // the output head is the embedding
    bool attention_bias, mlp_bias;
    nyb_rope_config rope;
    bool has_bos;
    size_t bos;
    size_t eos_count;
    size_t eos[NYB_EOS_MAX];
    nyb_dtype dtype; // declared storage type; f32 when the file does not say
} nyb_model_config;

// Reads folder/config.json. Features that nybble does not compute are errors, never ignored.
//
// NYB_E_IO           the file is missing or unreadable.
// NYB_E_FORMAT       not JSON; a value is missing, of the wrong kind, or outside its range.
// NYB_E_UNSUPPORTED  an architecture, activation, rope type or feature that is not supported;
//                    err says which are.
// On every error *out is undefined.
NYB_NODISCARD nyb_status nyb_model_config_load(nyb_model_config *out, const char *folder,
                                               nyb_err *err);

// The same for a parsed document; `name` stands for it in errors.
NYB_NODISCARD nyb_status nyb_model_config_read(nyb_model_config *out, const json_t *doc,
                                               const char *name, nyb_err *err);

// Replaces the end-of-sequence ids by those of a JSON value: an id, or a list of them.
NYB_NODISCARD nyb_status nyb_eos_read(nyb_model_config *out, const json_t *value, const char *name,
                                      nyb_err *err);

// The number behind a width.
size_t nyb_extent_of(const nyb_model_config *config, nyb_extent extent);

#endif // NYB_MODEL_CONFIG_H_
