#include <stdio.h>

#include "cli/command.h"
#include "nybble/report.h"

typedef struct options {
    const char *output, *chart, *title;
    bool force;
} options;

static const options defaults = {0};

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, NYB_INTO(options, output), .value = "FILE",
     .about = "Page to write."},
    {"chart", 0, NYB_OPTION_PATH, NYB_INTO(options, chart), .value = "FILE",
     .about = "The main chart alone, as an SVG file."},
    {"title", 0, NYB_OPTION_TEXT, NYB_INTO(options, title), .value = "TEXT",
     .about = "The page's heading."},
    {"force", 0, NYB_OPTION_FLAG, NYB_INTO(options, force), .about = "Replace files."},
    {0}};

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_report_params params = {.files = call->operands,
                                      .file_count = call->operand_count,
                                      .title = o->title,
                                      .html = o->output,
                                      .chart = o->chart,
                                      .force = o->force};
    nyb_err err;
    if (!o->output && !o->chart)
        return nyb_call_usage(call, "say what to make: -o FILE, or --chart FILE");
    if (nyb_report(&call->context, &params, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        return nyb_call_answer(call, "{s:o?, s:o?}", "output",
                               o->output ? json_string(o->output) : NULL, "chart",
                               o->chart ? json_string(o->chart) : NULL);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_report = {
    .name = "report",
    .about = "Makes a page with charts of what compare, sweep and calibrate found",
    .operands = "FILE...",
    .operand_min = 1,
    .operand_max = SIZE_MAX,
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples = (const nyb_example[]){{"nybble report points.jsonl inputs.json -o report.html",
                                       "A page of what 'compare --points' and 'calibrate' wrote."},
                                      {"nybble report points.jsonl --chart front.svg",
                                       "The main chart as a picture."},
                                      {0}},
    .notes = "FILE is JSON lines of nybble.point/1, as sweep writes them and compare --points, or "
             "JSON of calibrate. The page is one file that loads nothing and runs no script. The "
             "same files give the same bytes.",
    .run = run,
};
