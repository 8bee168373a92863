#include <stdio.h>
#include <string.h>

#include "cli/evaluating.h"

enum { MODELS_MAX = 64 };

static const char *name_of(const char *path, char name[128])
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    (void) snprintf(name, 128, "%.*s", (int) (end - start), path + start);
    return name;
}

static void print_rows(const nyb_call *call, const nyb_compared *rows)
{
    static const nyb_column columns[] = {
        {"model", false},     {"size", true}, {"bits/weight", true},
        {"perplexity", true}, {"KL", true},   {"same top-1", true},
    };
    nyb_table table = nyb_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < call->operand_count; i++) {
        const nyb_compared *const r = &rows[i];
        char size[32], name[128];
        nyb_table_cell(&table, "%s", name_of(call->operands[i], name));
        nyb_table_cell(&table, "%s", nyb_bytes_text(size, r->bytes));
        nyb_table_cell(&table, "%.2f", r->bits_per_weight);
        if (r->eval.perplexity < 1e6)
            nyb_table_cell(&table, "%.4f", r->eval.perplexity);
        else
            nyb_table_cell(&table, "%.3g", r->eval.perplexity);
        if (i == 0) {
            nyb_table_cell(&table, "-");
            nyb_table_cell(&table, "-");
        } else {
            nyb_table_cell(&table, "%.5f", r->kl);
            nyb_table_cell(&table, "%.2f %%", 100.0 * r->top1);
        }
    }
    nyb_table_print(&table);
}

static json_t *document_of(const nyb_call *call, const nyb_eval_params *params,
                           const nyb_compared *rows)
{
    json_t *const doc = nyb_call_document(call);
    json_t *const models = json_array();
    json_object_set_new(doc, "data", nyb_evaluating_json(params, &rows[0].eval));
    for (size_t i = 0; i < call->operand_count; i++) {
        const nyb_compared *const r = &rows[i];
        json_array_append_new(
            models,
            json_pack("{s:s, s:I, s:I, s:f, s:f, s:o, s:f, s:f}", "model", call->operands[i],
                      "bytes", (json_int_t) r->bytes, "layer_bytes", (json_int_t) r->layer_bytes,
                      "bits_per_weight", r->bits_per_weight, "loss", r->eval.loss, "perplexity",
                      nyb_json_finite(r->eval.perplexity), "kl", r->kl, "top1", r->top1));
    }
    json_object_set_new(doc, "models", models);
    return doc;
}

static nyb_exit run(const nyb_call *call)
{
    const nyb_eval_params params = nyb_evaluating_params(call);
    nyb_compared rows[MODELS_MAX];
    nyb_err err;
    if (nyb_compare(&call->context, call->operands, call->operand_count, &params, rows, &err) !=
        NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json) {
        nyb_call_print_json(call, document_of(call, &params, rows));
    } else {
        nyb_evaluating_print(&params, &rows[0].eval);
        print_rows(call, rows);
    }
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_compare = {
    .name = "compare",
    .about = "Compares checkpoints with their original: size, perplexity, divergence, agreement",
    .operands = "BASE MODEL...",
    .operand_min = 1,
    .operand_max = MODELS_MAX,
    .options = nyb_evaluating_options,
    .options_size = sizeof(nyb_evaluating),
    .defaults = &nyb_evaluating_defaults,
    .compute = true,
    .examples =
        (const nyb_example[]){{"nybble compare llama llama-4bit llama-int4 --text wiki.test.raw",
                               "GPTQ beside plain INT4, both against the original."},
                              {0}},
    .notes = "bits/weight counts everything that the linear layers inside the blocks take in the "
             "files. KL is the mean over all scored positions of the Kullback-Leibler divergence "
             "of the model's prediction from BASE's, in nats; same top-1 is the share of "
             "positions where both find the same token the most probable.",
    .run = run,
};
