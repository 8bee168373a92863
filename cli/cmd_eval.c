#include <stdio.h>

#include "cli/evaluating.h"

typedef struct options {
    nyb_evaluating scoring;
} options;

static const options defaults = {.scoring = NYB_EVALUATING_DEFAULTS};

static const nyb_option table[] = {NYB_EVALUATING_OPTIONS(options, scoring), {0}};

static nyb_exit run(const nyb_call *call)
{
    const nyb_eval_params params = nyb_evaluating_params(call);
    nyb_eval_result r;
    nyb_err err;
    if (nyb_eval(&call->context, call->operands[0], &params, &r, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return nyb_call_answer(call, "{s:o?, s:o, s:o, s:o, s:f}", "model",
                               json_string(call->operands[0]), "data",
                               nyb_evaluating_json(&params, &r), "loss", nyb_json_finite(r.loss),
                               "perplexity", nyb_json_finite(r.perplexity), "seconds", r.seconds);
    nyb_evaluating_print(&params, &r);
    (void) printf("perplexity %.4f (%.5f nats a token), %.1f s\n", r.perplexity, r.loss, r.seconds);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_eval = {
    .name = "eval",
    .about = "Measures a checkpoint's perplexity on a text",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble eval llama-4bit --text wiki.test.raw",
             "The whole text, 1,024 tokens at once."},
            {"nybble eval llama-4bit --text wiki.test.raw --window 2048 --stride 512 --json",
             "Overlapping windows; at least 1,536 tokens stand before a scored one."},
            {0}},
    .notes = "With the default stride every token after a window's first is scored. MODEL may be "
             "quantised or not; it runs in f32 unless --compute says otherwise.",
    .run = run,
};
