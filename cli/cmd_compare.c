#include <stdio.h>
#include <string.h>

#include "cli/evaluating.h"
#include "nybble/report.h"

enum { MODELS_MAX = 64 };

typedef struct options {
    nyb_evaluating scoring;
    const char *html, *chart, *points, *ranges, *prompt, *title;
    size_t new_tokens;
    bool force;
} options;

static const options defaults = {.scoring = NYB_EVALUATING_DEFAULTS, .new_tokens = 64};

static const nyb_option table[] = {
    NYB_EVALUATING_OPTIONS(options, scoring),
    {"html", 0, NYB_OPTION_PATH, NYB_INTO(options, html), .value = "FILE",
     .section = "A page to look at",
     .about = "Page to write: charts of accuracy and size, errors of layers, histograms, texts, "
              "and the command behind each checkpoint. It loads nothing from anywhere."},
    {"chart", 0, NYB_OPTION_PATH, NYB_INTO(options, chart), .value = "FILE",
     .about = "The page's main chart alone, as an SVG file."},
    {"points", 0, NYB_OPTION_PATH, NYB_INTO(options, points), .value = "FILE",
     .about = "What the page is made of, as JSON lines; 'nybble report' makes the page of them."},
    {"ranges", 0, NYB_OPTION_PATH, NYB_INTO(options, ranges), .value = "FILE",
     .about = "JSON of 'nybble calibrate', to show ranges of activations too."},
    {"prompt", 0, NYB_OPTION_TEXT, NYB_INTO(options, prompt), .value = "TEXT",
     .about = "Show how each checkpoint goes on with this text."},
    {"new-tokens", 0, NYB_OPTION_SIZE, NYB_INTO(options, new_tokens), .value = "N", .min = 1,
     .max = 1e6, .about = "Tokens of those texts."},
    {"title", 0, NYB_OPTION_TEXT, NYB_INTO(options, title), .value = "TEXT",
     .about = "The page's heading."},
    {"force", 0, NYB_OPTION_FLAG, NYB_INTO(options, force), .about = "Replace files."},
    {0}};

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
    nyb_table cells = nyb_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < call->operand_count; i++) {
        const nyb_compared *const r = &rows[i];
        char size[32], name[128];
        nyb_table_cell(&cells, "%s", name_of(call->operands[i], name));
        nyb_table_cell(&cells, "%s", nyb_bytes_text(size, r->bytes));
        nyb_table_cell(&cells, "%.2f", r->bits_per_weight);
        if (r->eval.perplexity < 1e6)
            nyb_table_cell(&cells, "%.4f", r->eval.perplexity);
        else
            nyb_table_cell(&cells, "%.3g", r->eval.perplexity);
        if (i == 0) {
            nyb_table_cell(&cells, "-");
            nyb_table_cell(&cells, "-");
        } else {
            nyb_table_cell(&cells, "%.5f", r->kl);
            nyb_table_cell(&cells, "%.2f %%", 100.0 * r->top1);
        }
    }
    nyb_table_print(&cells);
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

// The files that were asked for.
static nyb_report_params report_params(const options *o, const nyb_report_comparison *comparison)
{
    return (nyb_report_params){.files = &o->ranges,
                               .file_count = o->ranges ? 1 : 0,
                               .comparison = comparison,
                               .title = o->title,
                               .html = o->html,
                               .chart = o->chart,
                               .points = o->points,
                               .force = o->force};
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_eval_params params = nyb_evaluating_params(call);
    nyb_compared rows[MODELS_MAX];
    const nyb_report_comparison comparison = {.folders = call->operands,
                                              .count = call->operand_count,
                                              .eval = &params,
                                              .rows = rows,
                                              .prompt = o->prompt,
                                              .new_tokens = o->new_tokens};
    const nyb_report_params report = report_params(o, &comparison);
    const bool wanted = o->html || o->chart || o->points;
    nyb_err err;
    if (!wanted && (o->ranges || o->prompt || o->title))
        return nyb_call_usage(call, "--ranges, --prompt and --title are for a page: give --html, "
                                    "--chart or --points");
    if (nyb_report_check(&report, &err) != NYB_OK ||
        nyb_compare(&call->context, call->operands, call->operand_count, &params, rows, &err) !=
            NYB_OK ||
        (wanted && nyb_report(&call->context, &report, &err) != NYB_OK))
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
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .compute = true,
    .examples =
        (const nyb_example[]){{"nybble compare llama llama-4bit llama-int4 --text wiki.test.raw",
                               "GPTQ beside plain INT4, both against the original."},
                              {"nybble compare llama llama-4bit --text wiki.test.raw --html "
                               "page.html --prompt \"Once\"",
                               "A page with charts, and with how each goes on with a text."},
                              {0}},
    .notes = "bits/weight is what the matrices of the linear layers inside the blocks take in the "
             "files: codes, scales, zero points and group indices. KL is the mean over all scored "
             "positions of the Kullback-Leibler divergence "
             "of the model's prediction from BASE's, in nats; same top-1 is the share of "
             "positions where both find the same token the most probable.",
    .run = run,
};
