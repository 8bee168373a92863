#include "cli/evaluating.h"

#include <stdio.h>

static const char *const bos_words[] = {"auto", "never", "always", NULL};

const nyb_evaluating nyb_evaluating_defaults = {.window = 1024};

// In the order of nyb_activation_kind.
static const char *const activations[] = {
    "none", "int8", "float8", "int8-per-token", "float8-per-token", NULL};

#define INTO(field) NYB_INTO(nyb_evaluating, field)

const nyb_option nyb_evaluating_options[] = {
    {"text", 't', NYB_OPTION_PATH, INTO(text), .value = "FILE", .required = true,
     .about = "Text to score, or token ids in .npy or .json."},
    {"window", 'w', NYB_OPTION_SIZE, INTO(window), .value = "N", .min = 2, .max = 1e7,
     .about = "Tokens that the model sees at once."},
    {"stride", 0, NYB_OPTION_SIZE, INTO(stride), .value = "N", .shown_default = "the window",
     .about = "Tokens from one window's start to the next; with less than the window, each token "
              "is scored in the first window that has it."},
    {"max-tokens", 0, NYB_OPTION_SIZE, INTO(max_tokens), .value = "N", .shown_default = "all",
     .about = "Score the first N tokens of the text."},
    {"bos", 0, NYB_OPTION_CHOICE, INTO(bos), .choices = bos_words, .value = "WHEN",
     .about = "Whether each window begins with the begin-of-sequence token. auto: as the model's "
              "tokenizer does it."},
    {"activations", 'a', NYB_OPTION_CHOICE, INTO(activations), .choices = activations,
     .value = "WHAT",
     .about = "What the inputs of quantised layers are rounded to, as machines do it that multiply "
              "8-bit numbers: int8 and float8 have a scale for all tokens of a window, or for each "
              "token; where the checkpoint has a scale for the input, that one."},
    {0}};

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
