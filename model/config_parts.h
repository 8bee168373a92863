// config_parts.h - what the readers of a configuration's parts share.
#ifndef NYB_MODEL_CONFIG_PARTS_H_
#define NYB_MODEL_CONFIG_PARTS_H_

#include "model/config.h"

// No real model comes near these; they keep every product of two extents far from overflow.
enum {
    NYB_MOST_WIDTH = 1 << 24,
    NYB_MOST_HEADS = 1 << 16,
    NYB_MOST_HEAD_DIM = 1 << 14,
    NYB_MOST_POSITIONS = 1 << 30,
    NYB_MOST_EXPERTS = 1 << 12,
};

// A configuration being read.
typedef struct nyb_config_reader {
    nyb_model_config *out;
    const json_t *doc;
    const char *name;   // of the file
    nyb_misses *misses; // where what is not supported goes; reading goes on without it
} nyb_config_reader;

typedef nyb_status nyb_config_part(const nyb_config_reader *r, nyb_err *err);

// doc[key] in [1, high]. `absent` stands in for a missing or null key; 0: it has to be there.
NYB_NODISCARD nyb_status nyb_config_size(const nyb_config_reader *r, size_t *out, const char *key,
                                         size_t absent, size_t high, nyb_err *err);

// As the family has the switch. Null is "does not say".
NYB_NODISCARD nyb_status nyb_config_flag(const nyb_config_reader *r, bool *out, nyb_flag flag,
                                         nyb_err *err);

// Whether the key is there and not null.
bool nyb_config_given(const nyb_config_reader *r, const char *key);

nyb_config_part nyb_config_features;  // what only some families have, or none; `arch` may be NULL
nyb_config_part nyb_config_attention; // heads, scales, latent attention
nyb_config_part nyb_config_blocks;    // windows, blocks without rope
nyb_config_part nyb_config_experts;
nyb_config_part nyb_config_ropes;
nyb_config_part nyb_config_rope_words; // the type alone, of a family that is not known

#endif // NYB_MODEL_CONFIG_PARTS_H_
