#include <math.h>
#include <stdio.h>

#include "cli/command.h"
#include "nybble/report.h"
#include "nybble/sweep.h"

typedef struct options {
    const char *output, *html;
    bool keep, list, force;
} options;

static const options defaults = {0};

#define INTO(field) NYB_INTO(options, field)

static const nyb_option table[] = {
    {"output", 'o', NYB_OPTION_PATH, INTO(output), .value = "FOLDER", .required = true,
     .about = "Where results.jsonl, results.csv and stores of Hessians go. What is there is not "
              "done again."},
    {"keep", 'k', NYB_OPTION_FLAG, INTO(keep),
     .about = "Keep each point's checkpoint, in FOLDER/points."},
    {"list", 0, NYB_OPTION_FLAG, INTO(list),
     .about = "Only print the commands that make the points."},
    {"html", 0, NYB_OPTION_PATH, INTO(html), .value = "FILE",
     .about = "Also make a page of the results, as nybble report does it."},
    {"force", 0, NYB_OPTION_FLAG, INTO(force), .about = "Replace the page."},
    {0}};

// What the points tell, as they come.
typedef struct listening {
    const nyb_call *call;
    json_t *points;
    bool list;
} listening;

static void print_number(int digits, double value)
{
    if (isfinite(value))
        (void) printf("%9.*f ", digits, value);
    else
        (void) printf("%9s ", "-");
}

static void hear(void *user, const nyb_sweep_point *p)
{
    listening *const l = user;
    if (l->call->json) {
        json_array_append_new(
            l->points,
            json_pack("{s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "name", p->name, "command",
                      p->command, "known", p->known, "bits_per_weight",
                      nyb_json_finite(p->bits_per_weight), "perplexity",
                      nyb_json_finite(p->perplexity), "kl", nyb_json_finite(p->kl), "layer_loss",
                      nyb_json_finite(p->loss), "seconds", nyb_json_finite(p->seconds)));
        return;
    }
    if (l->list) {
        (void) printf("%s\n", p->command);
        return;
    }
    if (p->index == 0)
        (void) printf("%9s %9s %9s %9s  %s\n", "bits", "ppl", "KL", "seconds", "point");
    print_number(3, p->bits_per_weight);
    print_number(4, p->perplexity);
    print_number(5, p->kl);
    print_number(1, p->seconds);
    (void) printf(" %s%s\n", p->name, p->known ? " (known)" : "");
    (void) fflush(stdout);
}

// Makes the page of all results that the folder has, or, before they are there, checks that it may.
static nyb_status make_page(const nyb_call *call, bool check, nyb_err *err)
{
    const options *const o = call->options;
    char lines[4096];
    const char *const files[] = {lines};
    const nyb_report_params params = {
        .files = files, .file_count = 1, .html = o->html, .force = o->force};
    if (!o->html || o->list)
        return NYB_OK;
    (void) snprintf(lines, sizeof(lines), "%s/results.jsonl", o->output);
    return check ? nyb_report_check(&params, err) : nyb_report(&call->context, &params, err);
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    listening l = {.call = call, .points = call->json ? json_array() : NULL, .list = o->list};
    const nyb_sweep_params params = {.spec = call->operands[0],
                                     .out = o->output,
                                     .keep = o->keep,
                                     .list = o->list,
                                     .user = &l,
                                     .point = hear};
    nyb_sweep_result r;
    nyb_err err;
    if (make_page(call, true, &err) != NYB_OK ||
        nyb_sweep(&call->context, &params, &r, &err) != NYB_OK ||
        make_page(call, false, &err) != NYB_OK) {
        json_decref(l.points);
        return nyb_call_fail(call, &err);
    }
    if (call->json)
        return nyb_call_answer(call, "{s:o?, s:o, s:I, s:f, s:f, s:f, s:f}", "output",
                               json_string(o->output), "points", l.points, "known",
                               (json_int_t) r.known, "seconds", r.seconds, "calibrate_seconds",
                               r.calibrate_seconds, "solve_seconds", r.solve_seconds,
                               "eval_seconds", r.eval_seconds);
    if (!o->list)
        (void) printf("%s: %zu points, %zu of them known, %.1f s (calibration %.1f, solving %.1f, "
                      "evaluation %.1f)\n",
                      o->output, r.points, r.known, r.seconds, r.calibrate_seconds, r.solve_seconds,
                      r.eval_seconds);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_sweep = {
    .name = "sweep",
    .about = "Quantises a model in many ways from one calibration, and compares them",
    NYB_COMMAND_OPERANDS("SPEC.json", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .memory = true,
    .compute = true,
    .examples =
        (const nyb_example[]){
            {"nybble sweep sweep.json -o results",
             "Every point of the spec; started again, it goes on where it stopped."},
            {"nybble sweep sweep.json -o results --list", "The commands that do the same."},
            {0}},
    .notes =
        "SPEC.json is an object: \"model\"; \"calibration\" with \"files\", \"num_samples\" and "
        "\"sequence_length\", or several such objects by name; \"eval\" with \"text\", "
        "\"window\", \"max_tokens\" and \"kl\"; \"settings\" of all points; \"grid\", lists of "
        "values by setting, all combinations of which are points; and \"points\", a list of "
        "settings. Settings are named as in recipes; \"calibration\", \"num_samples\" and "
        "\"mode\" (\"independent\", \"sequential\") go with them.\n\n"
        "Hessians are summed up once and kept in FOLDER/stores; all points in independent mode "
        "are solved from them.",
    .run = run,
};
