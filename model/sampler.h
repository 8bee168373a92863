// sampler.h - choosing the next token from its logits.
#ifndef NYB_MODEL_SAMPLER_H_
#define NYB_MODEL_SAMPLER_H_

#include "nybble/generate.h"

typedef struct nyb_choice {
    float logit;
    uint32_t id;
} nyb_choice;

typedef struct nyb_sampler {
    nyb_generate_params params;
    size_t vocab;
    uint64_t random;     // state
    nyb_choice *choices; // [vocab]; NULL: greedy
} nyb_sampler;

// NYB_E_ARG    temperature or top_p is outside its range.
// NYB_E_NOMEM  no room. On both out is zeroed.
NYB_NODISCARD nyb_status nyb_sampler_init(nyb_sampler *out, const nyb_generate_params *params,
                                          size_t vocab, nyb_err *err);
void nyb_sampler_clear(nyb_sampler *sampler); // zeroed is fine

// The next token for logits [vocab].
//
// NYB_E_NUMERIC  a logit is not finite.
NYB_NODISCARD nyb_status nyb_sampler_next(nyb_sampler *sampler, const float *logits, uint32_t *id,
                                          nyb_err *err);

#endif // NYB_MODEL_SAMPLER_H_
