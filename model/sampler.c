#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"
#include "kernels/vector.h"

nyb_status nyb_sampler_init(nyb_sampler *out, const nyb_generate_params *params, size_t vocab,
                            nyb_err *err)
{
    *out = (nyb_sampler){0};
    if (!(params->temperature >= 0.0 && params->temperature <= 1e6))
        return nyb_fail(err, NYB_E_ARG, "temperature is %g, want 0 or more", params->temperature);
    if (!(params->top_p > 0.0 && params->top_p <= 1.0))
        return nyb_fail(err, NYB_E_ARG, "top-p is %g, want more than 0 and at most 1",
                        params->top_p);
    nyb_sampler made = {.params = *params, .vocab = vocab, .random = params->seed};
    if (params->temperature > 0.0) {
        made.choices = nyb_alloc_raw(vocab, sizeof(*made.choices));
        if (!made.choices)
            return nyb_no_memory(err, "the choices of a token", vocab, sizeof(*made.choices));
    }
    *out = made;
    return NYB_OK;
}

void nyb_sampler_clear(nyb_sampler *sampler)
{
    nyb_free(sampler->choices);
    *sampler = (nyb_sampler){0};
}

// Most probable first; of equals the lower id, so that the order is the same everywhere.
static int compare(const void *a, const void *b)
{
    const nyb_choice *const x = a, *const y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

// How many of the leading choices are kept: top_k, then the fewest that reach top_p of the
// probability. *sum receives theirs, relative to the first's.
static size_t keep(const nyb_sampler *s, double *sum)
{
    const size_t most = s->params.top_k && s->params.top_k < s->vocab ? s->params.top_k : s->vocab;
    const double top = (double) s->choices[0].logit;
    double total = 0.0;
    for (size_t i = 0; i < most; i++)
        total += exp(((double) s->choices[i].logit - top) / s->params.temperature);
    *sum = 0.0;
    for (size_t i = 0; i < most; i++) {
        *sum += exp(((double) s->choices[i].logit - top) / s->params.temperature);
        if (*sum >= s->params.top_p * total)
            return i + 1;
    }
    return most;
}

nyb_status nyb_sampler_next(nyb_sampler *s, const float *logits, uint32_t *id, nyb_err *err)
{
    const nyb_vector_ops *const ops = nyb_vector_ops_get();
    const size_t bad = ops->first_not_finite(logits, s->vocab);
    if (bad < s->vocab)
        return nyb_fail(err, NYB_E_NUMERIC, "the logit of token %zu is %g", bad,
                        (double) logits[bad]);
    if (!s->choices) {
        *id = (uint32_t) ops->argmax(logits, s->vocab);
        return NYB_OK;
    }
    for (size_t i = 0; i < s->vocab; i++)
        s->choices[i] = (nyb_choice){.logit = logits[i], .id = (uint32_t) i};
    qsort(s->choices, s->vocab, sizeof(*s->choices), compare);

    double sum = 0.0;
    const size_t kept = keep(s, &sum);
    const double top = (double) s->choices[0].logit;
    double left = nyb_random_unit(&s->random) * sum;
    for (size_t i = 0; i < kept; i++) {
        left -= exp(((double) s->choices[i].logit - top) / s->params.temperature);
        *id = s->choices[i].id;
        if (left < 0.0)
            break;
    }
    return NYB_OK;
}
