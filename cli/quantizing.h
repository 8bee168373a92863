// quantizing.h - the options that `quantize` and `plan` share.
#ifndef NYB_CLI_QUANTIZING_H_
#define NYB_CLI_QUANTIZING_H_

#include "cli/sampling.h"
#include "nybble/quantize.h"

typedef struct nyb_quantizing {
    const char *output, *config, *recipe, *text_field, *hessians, *imatrix_in, *imatrix;
    nyb_sampling sampling;
    int method, range, activations, input_range, float8_type, float8_scales, embedding, head,
        objective, order, format, loss_mask, expert_calibration,
        expert_fallback; // indices in the choices of the table
    size_t weight_bits, refine;
    int group_size;
    bool asymmetric, scale_search, static_groups, force, resume;
    bool pack, chat;
    double damping, percentile, input_percentile, objective_strength, target_bits;
    size_t shard_size, expert_min_tokens, objective_step;
} nyb_quantizing;

extern const nyb_quantizing nyb_quantizing_defaults;
extern const nyb_option nyb_quantizing_options[];

// The library's parameters for a call of such a command.
nyb_quantize_params nyb_quantizing_params(const nyb_call *call);

#endif // NYB_CLI_QUANTIZING_H_
