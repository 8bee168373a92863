// adapter.h - a LoRA adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors.
#ifndef NYB_CALIB_ADAPTER_H_
#define NYB_CALIB_ADAPTER_H_

#include "core/json.h"
#include "formats/checkpoint.h"

// What a module's weight gains: scaling B A.
typedef struct nyb_lora {
    const char *module;      // as the adapter calls it, "model.layers.0.self_attn.q_proj"
    const nyb_tensor *a, *b; // [rank, in_features], [out_features, rank]
    size_t rank;
    double scaling;
} nyb_lora;

// A tensor that takes the place of the base's.
typedef struct nyb_saved {
    const char *name; // "lm_head.weight"
    const nyb_tensor *tensor;
} nyb_saved;

typedef struct nyb_adapter {
    nyb_arena arena;
    const char *folder;
    nyb_checkpoint *file;
    json_t *config;
    nyb_lora *loras; // [lora_count] sorted by module
    size_t lora_count;
    nyb_saved *saved; // [saved_count]
    size_t saved_count;
} nyb_adapter;

// Opens the folder, reads the configuration, and finds what every tensor is for.
//
// NYB_E_UNSUPPORTED  not LoRA, or a setting or a tensor that changes what merging means (DoRA, ...);
//                    err names it.
// NYB_E_FORMAT       a tensor lacks its partner or has the wrong shape, or a setting is no number.
// NYB_E_NUMERIC      a value is NaN or infinite.
// NYB_E_IO, NYB_E_NOMEM  as nyb_checkpoint_open().
// On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_adapter_open(nyb_adapter *out, const char *folder, nyb_err *err);
void nyb_adapter_close(nyb_adapter *adapter); // zeroed is fine

#endif // NYB_CALIB_ADAPTER_H_
