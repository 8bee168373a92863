#include "calib/gguf_quantize.h"

#include <string.h>

#include "calib/gguf_plan.h"
#include "calib/report_name.h"
#include "core/dtype.h"
#include "core/file.h"

static const char prefix[] = "gguf:";

bool nyb_gguf_wanted(const nyb_quantize_params *params)
{
    return params->format && strncmp(params->format, prefix, strlen(prefix)) == 0;
}

nyb_status nyb_gguf_type_asked(nyb_dtype *out, const nyb_quantize_params *params, nyb_err *err)
{
    if (nyb_gguf_type_named(params->format + strlen(prefix), out))
        return NYB_OK;
    return nyb_fail(err, NYB_E_ARG, "unknown format '%s'", params->format);
}

// The settings that the type's grid has; others that were given contradict it.
static nyb_status fit_settings(nyb_settings *s, unsigned given, nyb_dtype dtype, nyb_err *err)
{
    const char *const name = nyb_dtype_name(dtype);
    const unsigned bits = dtype == NYB_Q8_0 ? 8 : 4;
    if ((given & NYB_SETTING_BITS) && s->bits != bits)
        return nyb_fail(err, NYB_E_ARG, "%s has %u bits, not %u: leave out --weight-bits", name,
                        bits, s->bits);
    if ((given & NYB_SETTING_SYMMETRIC) && !s->symmetric)
        return nyb_fail(err, NYB_E_ARG, "%s has no zero points: leave out --asymmetric", name);
    if ((given & NYB_SETTING_GROUP_SIZE) && s->group_size % 32 != 0)
        return nyb_fail(err, NYB_E_ARG,
                        "%s has blocks of 32 columns: --group-size has to be a multiple of 32, "
                        "not %zu",
                        name, s->group_size);
    if ((given & NYB_SETTING_ORDER) && s->order == NYB_ORDER_FULL && !s->static_groups)
        return nyb_fail(err, NYB_E_ARG, "%s has no room for --activation-order full", name);
    s->bits = bits;
    s->symmetric = true;
    if (!(given & NYB_SETTING_GROUP_SIZE))
        s->group_size = 32;
    return NYB_OK;
}

// Types whose grids are not those of integer codes and scales alone.
static nyb_status fit_block_settings(nyb_settings *s, unsigned given, nyb_dtype dtype, nyb_err *err)
{
    const unsigned own = NYB_SETTING_BITS | NYB_SETTING_GROUP_SIZE | NYB_SETTING_SYMMETRIC |
                         NYB_SETTING_SCALE_SEARCH | NYB_SETTING_REFINE;
    if (given & own)
        return nyb_fail(err, NYB_E_ARG,
                        "%s has bits, groups and a search of its own: leave out --weight-bits, "
                        "--group-size, --asymmetric, --symmetric, --scale-search and --refine",
                        nyb_dtype_name(dtype));
    if ((given & NYB_SETTING_ORDER) && s->order == NYB_ORDER_FULL && !s->static_groups)
        return nyb_fail(err, NYB_E_ARG,
                        "%s has no room for --activation-order full; add --static-groups",
                        nyb_dtype_name(dtype));
    s->block = dtype;
    s->group_size = 0; // the type's own takes its place when the layer is known
    return NYB_OK;
}

nyb_status nyb_gguf_solve_params(nyb_quantize_params *out, const nyb_quantize_params *params,
                                 nyb_err *err)
{
    nyb_dtype dtype = NYB_F32;
    const nyb_status status = nyb_gguf_type_asked(&dtype, params, err);
    if (status != NYB_OK)
        return status;
    if (!nyb_dtype_is_block(dtype))
        return nyb_fail(err, NYB_E_ARG, "%s is no grid to solve on; use --method rtn",
                        nyb_dtype_name(dtype));
    const bool plain = dtype == NYB_Q4_0 || dtype == NYB_Q8_0;
    *out = *params;
    out->out = NULL;
    out->format = plain ? "gptq_v2" : "nybble-blocks"; // the one has scales in f16, as blocks do
    out->given |= NYB_SETTING_BITS | NYB_SETTING_SYMMETRIC | NYB_SETTING_GROUP_SIZE;
    if (!plain)
        return fit_block_settings(&out->settings, params->given, dtype, err);
    return fit_settings(&out->settings, params->given, dtype, err);
}

// Whatever would keep the file from being written shows before the solve.
static nyb_status check_plan(const nyb_gguf_params *file, nyb_err *err)
{
    nyb_gguf_plan plan;
    if (nyb_path_exists(file->out) && !file->force)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it",
                        file->out);
    const nyb_status status = nyb_gguf_plan_open(&plan, file, err);
    nyb_gguf_plan_close(&plan);
    return status;
}

static nyb_status write_solved(const nyb_context *ctx, nyb_gguf_params file, const char *folder,
                               nyb_quantize_result *r, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_quantize_result written = {0};
    json_t *report = NULL;
    const char *const path = nyb_path_join(&arena, folder, NYB_REPORT_NAME);
    nyb_status status =
        path ? nyb_json_load(&report, path, err) : nyb_no_memory(err, "path", strlen(folder), 1);
    file.model = folder;
    file.names = folder;
    file.exact = true;
    file.report = report;
    if (status == NYB_OK)
        status = nyb_gguf_file_write(ctx, &file, &written, err);
    json_decref(report);
    nyb_arena_clear(&arena);
    r->bytes_out = written.bytes_out;
    r->bits_per_weight = written.bits_per_weight;
    r->seconds += written.seconds;
    return status;
}

static nyb_status solve(const nyb_context *ctx, const nyb_quantize_params *params,
                        const nyb_gguf_params *file, nyb_quantize_result *r, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_quantize_params inner;
    nyb_status status = nyb_gguf_solve_params(&inner, params, err);
    if (status == NYB_OK)
        status = check_plan(file, err);
    const char *const folder = nyb_arena_format(&arena, "%s.solve", params->out);
    if (status == NYB_OK && !folder)
        status = nyb_no_memory(err, "path", strlen(params->out), 1);
    inner.out = folder;
    if (status == NYB_OK)
        status = nyb_quantize(ctx, &inner, r, err);
    if (status == NYB_OK)
        status = write_solved(ctx, *file, folder, r, err);
    if (status == NYB_OK)
        status = nyb_folder_remove(folder, err);
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_gguf_quantize(const nyb_context *ctx, const nyb_quantize_params *params,
                             nyb_quantize_result *result, nyb_err *err)
{
    nyb_quantize_result r = {0};
    nyb_gguf_params file = {.model = params->model,
                            .out = params->out,
                            .imatrix = params->imatrix_in,
                            .force = params->force};
    nyb_status status = nyb_gguf_type_asked(&file.dtype, params, err);
    if (status != NYB_OK)
        return status;
    if (params->embedding || params->head) {
        status = nyb_fail(err, NYB_E_ARG,
                          "a GGUF file's type says how its embedding and head are rounded: leave "
                          "out --embedding and --head");
    } else if (params->imatrix_in && params->settings.method != NYB_METHOD_RTN) {
        status = nyb_fail(
            err, NYB_E_ARG,
            "%s: an importance matrix is the diagonal of a Hessian, with which GPTQ moves no "
            "error from column to column: use --method rtn, which weighs by it",
            params->imatrix_in);
    } else if (params->settings.method == NYB_METHOD_GPTQ) {
        status = solve(ctx, params, &file, &r, err);
    } else if (params->settings.method != NYB_METHOD_RTN) {
        status = nyb_fail(err, NYB_E_ARG, "%s is rounded by the methods rtn and gptq only",
                          params->format);
    } else if (params->imatrix) {
        status = nyb_fail(err, NYB_E_ARG,
                          "%s: an importance matrix needs calibration: use --method gptq",
                          params->imatrix);
    } else if (params->recipe || (params->given & ~(unsigned) NYB_SETTING_METHOD)) {
        status = nyb_fail(err, NYB_E_ARG,
                          "plain rounding to %s has no settings: leave out recipes, bits, groups "
                          "and the like",
                          params->format);
    } else {
        status = nyb_gguf_file_write(ctx, &file, &r, err);
    }
    if (status == NYB_OK && result)
        *result = r;
    return status;
}
