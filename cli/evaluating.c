#include "cli/evaluating.h"

#include <stdio.h>

// In the order of nyb_activation_kind.
const char *const nyb_activation_words[] = {
    "none", "int8", "float8", "int8-per-token", "float8-per-token", NULL};

nyb_eval_params nyb_evaluating_params(const nyb_call *call)
{
    const nyb_evaluating *const o = call->options;
    return (nyb_eval_params){.path = o->text,
                             .window = o->window,
                             .stride = o->stride,
                             .max_tokens = o->max_tokens,
                             .bos = (nyb_bos) o->bos,
                             .activations = (nyb_activation_kind) o->activations};
}

void nyb_evaluating_print(const nyb_eval_params *params, const nyb_eval_result *result)
{
    (void) printf("%zu tokens in %zu windows of %zu every %zu, %s begin token, %zu scored\n",
                  result->tokens, result->windows, params->window,
                  params->stride ? params->stride : params->window,
                  result->bos ? "with" : "without", result->scored);
    if (result->line_ends)
        (void) printf("%zu line ends CR LF or CR were read as LF\n", result->line_ends);
}

json_t *nyb_evaluating_json(const nyb_eval_params *params, const nyb_eval_result *result)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:I, s:I}", "text", params->path,
                     "activations", nyb_activations_name(params->activations), "tokens",
                     (json_int_t) result->tokens, "windows", (json_int_t) result->windows, "window",
                     (json_int_t) params->window, "stride",
                     (json_int_t) (params->stride ? params->stride : params->window), "bos",
                     result->bos, "scored", (json_int_t) result->scored, "line_ends_converted",
                     (json_int_t) result->line_ends);
}
