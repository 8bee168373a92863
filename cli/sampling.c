#include "cli/sampling.h"

const char *const nyb_bos_words[] = {"auto", "never", "always", NULL};

// In the order of nyb_expert_calibration.
const char *const nyb_expert_tokens[] = {"routed", "all", NULL};

nyb_samples_params nyb_sampling_params(const nyb_call *call, const nyb_sampling *of)
{
    return (nyb_samples_params){.paths = of->calib.at,
                                .path_count = of->calib.count,
                                .count = of->num_samples,
                                .counted = nyb_call_given(call, "num-samples"),
                                .length = of->sequence_length,
                                .bos = (nyb_bos) of->bos,
                                .shuffle = nyb_call_given(call, "seed"),
                                .seed = of->seed,
                                .first_weight = of->first_weight};
}
