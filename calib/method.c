#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "core/status.h"
#include "nybble/solve.h"

static const char *const method_names[NYB_METHOD_COUNT] = {"gptq", "rtn", "int4", "int8", "float8"};
static const char *const order_names[] = {
    [NYB_ORDER_GROUP] = "group", [NYB_ORDER_NONE] = "none", [NYB_ORDER_FULL] = "full"};

enum { ORDER_COUNT = sizeof(order_names) / sizeof(order_names[0]) };

const char *nyb_method_name(nyb_method method)
{
    return (unsigned) method < NYB_METHOD_COUNT ? method_names[method] : "?";
}

bool nyb_method_by_name(const char *name, nyb_method *out)
{
    for (unsigned i = 0; i < NYB_METHOD_COUNT; i++) {
        if (strcmp(method_names[i], name) == 0) {
            *out = (nyb_method) i;
            return true;
        }
    }
    return false;
}

const char *nyb_gptq_order_name(nyb_gptq_order order)
{
    return (unsigned) order < ORDER_COUNT ? order_names[order] : "?";
}

bool nyb_gptq_order_by_name(const char *name, nyb_gptq_order *out)
{
    for (unsigned i = 0; i < ORDER_COUNT; i++) {
        if (strcmp(order_names[i], name) == 0) {
            *out = (nyb_gptq_order) i;
            return true;
        }
    }
    return false;
}

static nyb_status measure(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                          const nyb_qweight *q, nyb_gptq_report *report, nyb_err *err)
{
    nyb_status status = nyb_hessian_loss(ctx, hessian, w, q, &report->loss, err);
    if (status == NYB_OK)
        status = nyb_hessian_yardsticks(ctx, hessian, w, NULL, NULL, &report->output_energy, err);
    report->tokens = hessian->tokens;
    report->relative_error =
        report->output_energy > 0.0 ? report->loss / report->output_energy : 0.0;
    return status;
}

// The grid of a method that has one of its own.
static nyb_grid_params grid_of(const nyb_solve_params *params)
{
    const nyb_grid_params asked = params->gptq.grid;
    if (params->method == NYB_METHOD_RTN)
        return asked;
    if (params->method == NYB_METHOD_INT4 && asked.group_size)
        return (nyb_grid_params){.kind = NYB_GRID_EXTREMES,
                                 .bits = 4,
                                 .group_size = asked.group_size,
                                 .scale_dtype = asked.scale_dtype,
                                 .lowest_zero = asked.lowest_zero,
                                 .range = asked.range};
    return (nyb_grid_params){.kind = NYB_GRID_ABSMAX,
                             .bits = params->method == NYB_METHOD_INT4 ? 4 : 8,
                             .scale_dtype = asked.scale_dtype,
                             .range = asked.range};
}

// w, or what is stored where there is such.
static nyb_status round_weight(const nyb_context *ctx, nyb_qweight *out, nyb_mat w,
                               const nyb_tensor *stored, const nyb_solve_params *params,
                               nyb_err *err)
{
    const nyb_grid_params grid = grid_of(params);
    if (stored)
        return nyb_round_stored(ctx, out, stored, &grid, err);
    if (params->method != NYB_METHOD_FLOAT8)
        return nyb_round_nearest(ctx, out, w, &grid, err);
    nyb_float8_params floats = params->float8;
    floats.scale_dtype = params->gptq.grid.scale_dtype;
    return nyb_round_float8(ctx, out, w, &floats, err);
}

static nyb_status round_layer(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                              const nyb_tensor *stored, const nyb_solve_params *params,
                              nyb_qweight *out, nyb_gptq_report *report, nyb_err *err)
{
    const double start = nyb_seconds();
    const double none = (double) NAN;
    nyb_gptq_report result = {.loss = none,
                              .rtn_loss = none,
                              .output_energy = none,
                              .relative_error = none,
                              .solver_loss = none};

    nyb_status status = round_weight(ctx, out, w, stored, params, err);
    if (status == NYB_OK && hessian && report)
        status = measure(ctx, hessian, w, out, &result, err);
    if (status != NYB_OK) {
        nyb_qweight_clear(out);
        return status;
    }
    if (params->method == NYB_METHOD_RTN)
        result.rtn_loss = result.loss;
    result.seconds = nyb_seconds() - start;
    if (report)
        *report = result;
    return NYB_OK;
}

nyb_status nyb_solve_layer(const nyb_context *ctx, nyb_solve_input input, nyb_mat w,
                           const nyb_solve_params *params, nyb_qweight *out,
                           nyb_gptq_report *report, nyb_err *err)
{
    *out = (nyb_qweight){0};
    if ((unsigned) params->method >= NYB_METHOD_COUNT)
        return nyb_fail(err, NYB_E_ARG, "method is %d", (int) params->method);
    if (params->method != NYB_METHOD_GPTQ)
        return round_layer(ctx, input.hessian, w, NULL, params, out, report, err);
    if (!input.factor)
        return nyb_fail(err, NYB_E_ARG, "gptq needs the factor of a hessian");
    return nyb_gptq_solve(ctx, input.factor, w, &params->gptq, out, report, err);
}

nyb_status nyb_solve_stored(const nyb_context *ctx, const nyb_tensor *w,
                            const nyb_solve_params *params, nyb_qweight *out,
                            nyb_gptq_report *report, nyb_err *err)
{
    *out = (nyb_qweight){0};
    if (params->method == NYB_METHOD_GPTQ || params->method == NYB_METHOD_FLOAT8 ||
        (unsigned) params->method >= NYB_METHOD_COUNT)
        return nyb_fail(err, NYB_E_ARG, "stored weights are rounded by rtn, int4 and int8 alone");
    return round_layer(ctx, NULL, (nyb_mat){0}, w, params, out, report, err);
}
