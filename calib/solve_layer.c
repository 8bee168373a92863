// One layer from array files into a folder of array files.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/json.h"
#include "formats/npy.h"
#include "nybble/solve.h"
#include "nybble/version.h"

// Everything that a run holds; the owner, nyb_solve_run(), gives it back.
typedef struct solve_run {
    const nyb_context *ctx;
    const nyb_solve_files *files;
    const nyb_solve_params *params;
    nyb_arena arena;
    nyb_npy weight, hessian, inputs;
    nyb_mat w;
    nyb_hessian sum;
    nyb_gptq_factor factor;
    nyb_qweight q;
    nyb_gptq_report report;
} solve_run;

static nyb_status open_matrix(nyb_npy *out, const char *path, nyb_err *err)
{
    const nyb_status status = nyb_npy_open(out, path, err);
    if (status != NYB_OK)
        return status;
    const nyb_tensor *const t = &out->tensor;
    if (t->rank != 2 || t->shape[0] == 0 || t->shape[1] == 0)
        return nyb_fail(err, NYB_E_SHAPE, "'%s' is not a matrix: it has %u axes%s", path, t->rank,
                        t->rank == 2 ? ", one of them empty" : "");
    return NYB_OK;
}

static nyb_status read_weight(solve_run *run, nyb_err *err)
{
    const nyb_tensor *const t = &run->weight.tensor;
    run->w = nyb_arena_mat(&run->arena, t->shape[0], t->shape[1]);
    if (!run->w.at)
        return nyb_no_memory(err, "weight", t->shape[0], t->shape[1] * sizeof(float));
    return nyb_npy_floats(run->w.at, t, 0, t->shape[0] * t->shape[1], err);
}

// Only the upper triangle is used, so a matrix whose halves differ is refused.
static nyb_status check_symmetric(nyb_mat h, const char *path, nyb_err *err)
{
    for (size_t i = 0; i < h.rows; i++) {
        for (size_t j = 0; j < i; j++) {
            const double a = (double) nyb_row(h, i)[j], b = (double) nyb_row(h, j)[i];
            const double scale = fabs((double) nyb_row(h, i)[i] * (double) nyb_row(h, j)[j]);
            if (fabs(a - b) > 1e-3 * sqrt(scale)) // false for NaN, which the factor reports
                return nyb_fail(err, NYB_E_FORMAT,
                                "'%s' is not symmetric: (%zu, %zu) is %g, (%zu, %zu) is %g", path,
                                i, j, a, j, i, b);
        }
    }
    return NYB_OK;
}

static nyb_status read_hessian(solve_run *run, nyb_err *err)
{
    const nyb_tensor *const t = &run->hessian.tensor;
    const size_t n = run->w.cols;
    if (t->shape[0] != n || t->shape[1] != n)
        return nyb_fail(err, NYB_E_SHAPE, "'%s' is %zu x %zu, the weight has %zu columns",
                        run->files->hessian, t->shape[0], t->shape[1], n);
    nyb_status status = nyb_hessian_init(&run->sum, n, err);
    if (status != NYB_OK)
        return status;
    status = nyb_npy_floats(run->sum.h.at, t, 0, n * n, err);
    return status == NYB_OK ? check_symmetric(run->sum.h, run->files->hessian, err) : status;
}

static nyb_status check_inputs(nyb_mat x, size_t first, const char *path, nyb_err *err)
{
    for (size_t i = 0; i < x.rows; i++) {
        for (size_t j = 0; j < x.cols; j++) {
            if (!isfinite(nyb_row(x, i)[j]))
                return nyb_fail(err, NYB_E_NUMERIC, "'%s' (%zu, %zu) is %g", path, first + i, j,
                                (double) nyb_row(x, i)[j]);
        }
    }
    return NYB_OK;
}

// H = X^T X, some thousand tokens at a time.
static nyb_status sum_inputs(solve_run *run, nyb_err *err)
{
    enum { BATCH = 8 * NYB_HESSIAN_CHUNK };
    const nyb_tensor *const t = &run->inputs.tensor;
    const size_t n = run->w.cols, tokens = t->shape[0], most = tokens < BATCH ? tokens : BATCH;
    if (t->shape[1] != n)
        return nyb_fail(err, NYB_E_SHAPE, "'%s' has %zu columns, the weight has %zu",
                        run->files->inputs, t->shape[1], n);
    nyb_status status = nyb_hessian_init(&run->sum, n, err);
    if (status != NYB_OK)
        return status;
    const nyb_mat batch = nyb_arena_mat(&run->arena, most, n);
    if (!batch.at)
        return nyb_no_memory(err, "inputs", most, n * sizeof(float));

    for (size_t first = 0; first < tokens && status == NYB_OK; first += most) {
        const size_t rows = tokens - first < most ? tokens - first : most;
        const nyb_mat x = nyb_block(batch, 0, rows, 0, n);
        status = nyb_npy_floats(x.at, t, first * n, rows * n, err);
        if (status == NYB_OK)
            status = check_inputs(x, first, run->files->inputs, err);
        if (status == NYB_OK)
            status = nyb_hessian_add(run->ctx, &run->sum, x, err);
    }
    return status;
}

// The reference works with H = 2/N X^T X for N samples, and a matrix of inputs is one sample. Only
// the value 1 that it gives to dead columns, and so their place in the activation order, depends
// on the factor.
static void scale_as_reference(nyb_hessian *sum)
{
    for (size_t i = 0; i < sum->h.rows; i++) {
        for (size_t j = i; j < sum->h.cols; j++)
            nyb_row(sum->h, i)[j] *= 2.0f;
    }
}

static nyb_status read_layer(solve_run *run, nyb_err *err)
{
    const nyb_solve_files *const files = run->files;
    nyb_status status = open_matrix(&run->weight, files->weight, err);
    if (status == NYB_OK && files->hessian)
        status = open_matrix(&run->hessian, files->hessian, err);
    if (status == NYB_OK && files->inputs)
        status = open_matrix(&run->inputs, files->inputs, err);
    if (status == NYB_OK)
        status = read_weight(run, err);
    if (status == NYB_OK && files->hessian)
        status = read_hessian(run, err);
    if (status == NYB_OK && files->inputs) {
        status = sum_inputs(run, err);
        if (status == NYB_OK && run->params->gptq.grid.reference)
            scale_as_reference(&run->sum);
    }
    return status;
}

static nyb_status solve(solve_run *run, nyb_err *err)
{
    const bool gptq = run->params->method == NYB_METHOD_GPTQ;
    nyb_solve_input input = {0};
    if (gptq) {
        const nyb_status status =
            nyb_gptq_prepare(run->ctx, &run->factor, &run->sum, &run->params->gptq, err);
        if (status != NYB_OK)
            return status;
        input.factor = &run->factor;
    } else if (run->sum.h.at) {
        input.hessian = &run->sum;
    }
    const nyb_status status =
        nyb_solve_layer(run->ctx, input, run->w, run->params, &run->q, &run->report, err);
    run->report.seconds += run->factor.seconds;
    return status;
}

// JSON has no NaN; null says that there is no such number.
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void set_settings(json_t *report, const solve_run *run)
{
    const nyb_gptq_params *const p = &run->params->gptq;
    const nyb_qweight *const q = &run->q;
    const bool gptq = run->params->method == NYB_METHOD_GPTQ;
    (void) json_object_set_new(report, "schema", json_string("nybble.solve/1"));
    (void) json_object_set_new(report, "nybble", json_string(nyb_version()));
    (void) json_object_set_new(report, "method", json_string(nyb_method_name(run->params->method)));
    (void) json_object_set_new(report, "rows", json_integer((json_int_t) q->rows));
    (void) json_object_set_new(report, "cols", json_integer((json_int_t) q->cols));
    (void) json_object_set_new(report, "bits", json_integer(q->bits));
    (void) json_object_set_new(report, "group_size", json_integer((json_int_t) q->group_size));
    (void) json_object_set_new(report, "groups", json_integer((json_int_t) q->groups));
    (void) json_object_set_new(report, "symmetric", json_boolean(q->symmetric));
    (void) json_object_set_new(report, "scale_dtype", json_string(nyb_dtype_name(q->scale_dtype)));
    (void) json_object_set_new(report, "bits_per_weight", json_real(nyb_qweight_bits(q)));
    (void) json_object_set_new(report, "scale_search", json_boolean(p->grid.scale_search));
    (void) json_object_set_new(report, "lowest_zero", json_integer(p->grid.lowest_zero));
    (void) json_object_set_new(report, "reference", json_boolean(p->grid.reference));
    if (!gptq)
        return;
    (void) json_object_set_new(report, "activation_order",
                               json_string(nyb_gptq_order_name(p->order)));
    (void) json_object_set_new(report, "static_groups", json_boolean(p->static_groups));
    (void) json_object_set_new(report, "damping_asked", json_real(p->damping));
    (void) json_object_set_new(report, "refine", json_integer(p->refine));
}

static void set_results(json_t *report, const solve_run *run)
{
    const nyb_gptq_report *const r = &run->report;
    const bool reference = run->params->gptq.grid.reference;
    (void) json_object_set_new(report, "tokens", json_integer((json_int_t) r->tokens));
    if (run->params->method == NYB_METHOD_GPTQ) {
        (void) json_object_set_new(report, "damping", json_real(r->damping));
        (void) json_object_set_new(report, "damping_attempts", json_integer(r->attempts));
        (void) json_object_set_new(report, "dead_columns",
                                   json_integer((json_int_t) r->dead_columns));
        (void) json_object_set_new(report, "solver_loss", number(r->solver_loss));
        (void) json_object_set_new(report, "pass_loss", number(r->pass_loss));
        (void) json_object_set_new(report, "refine_seconds", json_real(r->refine_seconds));
        if (reference)
            (void) json_object_set_new(report, "reference_loss", number(r->solver_loss / 2.0));
    }
    (void) json_object_set_new(report, "loss", number(r->loss));
    (void) json_object_set_new(report, "rtn_loss", number(r->rtn_loss));
    (void) json_object_set_new(report, "output_energy", number(r->output_energy));
    (void) json_object_set_new(report, "relative_error", number(r->relative_error));
    // The mean over tokens and outputs, where the number of tokens is known.
    const double count = (double) run->q.rows * (double) r->tokens * (reference ? 2.0 : 1.0);
    if (r->tokens)
        (void) json_object_set_new(report, "output_mse", number(r->loss / count));
    (void) json_object_set_new(report, "seconds", json_real(r->seconds));
}

static nyb_status save_array(solve_run *run, const char *folder, const char *name,
                             nyb_tensor tensor, nyb_err *err)
{
    const char *const path = nyb_path_join(&run->arena, folder, name);
    if (!path)
        return nyb_no_memory(err, "a path", 1, strlen(folder));
    tensor.bytes = nyb_dtype_bytes(tensor.dtype);
    for (unsigned i = 0; i < tensor.rank; i++)
        tensor.bytes *= tensor.shape[i];
    tensor.name = name;
    return nyb_npy_save(path, &tensor, err);
}

static nyb_status save_arrays(solve_run *run, const char *folder, nyb_err *err)
{
    const nyb_qweight *const q = &run->q;
    const nyb_tensor codes = {
        .dtype = NYB_U8, .rank = 2, .shape = {q->rows, q->cols}, .at = q->codes};
    const nyb_tensor scales = {
        .dtype = NYB_F32, .rank = 2, .shape = {q->rows, q->groups}, .at = q->scales};
    const nyb_tensor zeros = {
        .dtype = NYB_U8, .rank = 2, .shape = {q->rows, q->groups}, .at = q->zeros};
    const nyb_tensor g_idx = {// groups are below 2^31: the same bytes
                              .dtype = NYB_I32,
                              .rank = 1,
                              .shape = {q->cols},
                              .at = q->group_of};

    nyb_status status = save_array(run, folder, "codes.npy", codes, err);
    if (status == NYB_OK)
        status = save_array(run, folder, "scales.npy", scales, err);
    if (status == NYB_OK)
        status = save_array(run, folder, "zeros.npy", zeros, err);
    if (status == NYB_OK)
        status = save_array(run, folder, "g_idx.npy", g_idx, err);
    return status;
}

static nyb_status save_report(solve_run *run, const char *folder, nyb_err *err)
{
    const char *const path = nyb_path_join(&run->arena, folder, "report.json");
    json_t *const report = json_object();
    nyb_status status;
    if (path && report) {
        set_settings(report, run);
        set_results(report, run);
        status = nyb_json_save(report, path, err);
    } else {
        status = nyb_no_memory(err, "report", 1, 1);
    }
    json_decref(report);
    return status;
}

// The output folder's name without slashes at its end.
static const char *trimmed(solve_run *run)
{
    const char *const path = run->files->output;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return nyb_arena_text(&run->arena, path, length);
}

// Whether the folder may be written: not there, or, when forced, one that this function made.
static nyb_status check_output(solve_run *run, const char *path, nyb_err *err)
{
    if (!nyb_path_exists(path))
        return NYB_OK;
    if (!run->files->force)
        return nyb_fail(err, NYB_E_EXISTS, "'%s' is already there: use --force to replace it",
                        path);
    const char *const report = nyb_path_join(&run->arena, path, "report.json");
    if (!report || !nyb_path_exists(report))
        return nyb_fail(err, NYB_E_EXISTS,
                        "'%s' is not a folder that a solve wrote, so it is not replaced", path);
    return NYB_OK;
}

// Writes beside the final name and renames.
static nyb_status save(solve_run *run, const char *output, nyb_err *err)
{
    const char *const part = nyb_arena_format(&run->arena, "%s.part", output);
    if (!part)
        return nyb_no_memory(err, "a path", 1, strlen(output));
    nyb_status status = nyb_folder_remove(part, err); // what a killed run left
    if (status == NYB_OK)
        status = nyb_folder_make(part, err);
    if (status != NYB_OK)
        return status;
    status = save_arrays(run, part, err);
    if (status == NYB_OK)
        status = save_report(run, part, err);
    if (status == NYB_OK)
        status = nyb_folder_sync(part, err);
    if (status == NYB_OK && run->files->force)
        status = nyb_folder_remove(output, err);
    if (status == NYB_OK)
        status = nyb_rename(part, output, err);
    if (status != NYB_OK) { // the first error is the one to tell
        const nyb_status removed = nyb_folder_remove(part, NULL);
        (void) removed;
    }
    return status;
}

static nyb_status run_all(solve_run *run, nyb_err *err)
{
    const nyb_solve_files *const files = run->files;
    if (files->hessian && files->inputs)
        return nyb_fail(err, NYB_E_ARG, "both a hessian and inputs are given, want one of them");
    if (run->params->method == NYB_METHOD_GPTQ && !files->hessian && !files->inputs)
        return nyb_fail(err, NYB_E_ARG, "gptq needs a hessian or inputs");
    const char *const output = trimmed(run);
    if (!output)
        return nyb_no_memory(err, "a path", 1, strlen(files->output));

    nyb_status status = check_output(run, output, err);
    if (status == NYB_OK)
        status = read_layer(run, err);
    if (status == NYB_OK)
        status = solve(run, err);
    return status == NYB_OK ? save(run, output, err) : status;
}

nyb_status nyb_solve_run(const nyb_context *ctx, const nyb_solve_files *files,
                         const nyb_solve_params *params, nyb_gptq_report *report, nyb_err *err)
{
    solve_run run = {.ctx = ctx, .files = files, .params = params};
    const nyb_status status = run_all(&run, err);
    if (status == NYB_OK && report)
        *report = run.report;
    nyb_npy_close(&run.weight);
    nyb_npy_close(&run.hessian);
    nyb_npy_close(&run.inputs);
    nyb_hessian_clear(&run.sum);
    nyb_gptq_factor_clear(&run.factor);
    nyb_qweight_clear(&run.q);
    nyb_arena_clear(&run.arena);
    return status;
}
