#include "gptq/params.h"

#include <math.h>

#include "ptq/grid.h"

nyb_status nyb_gptq_check(const nyb_gptq_params *params, size_t cols, nyb_err *err)
{
    const double damping = params->damping, limit = params->damping_limit;
    if (params->grid.kind != NYB_GRID_MINMAX)
        return nyb_fail(err, NYB_E_ARG, "gptq wants a min-max grid");
    if (params->order != NYB_ORDER_GROUP && params->order != NYB_ORDER_NONE &&
        params->order != NYB_ORDER_FULL)
        return nyb_fail(err, NYB_E_ARG, "activation order is %d", (int) params->order);
    if (!(damping > 0.0 && damping <= limit && isfinite(limit)))
        return nyb_fail(err, NYB_E_ARG, "damping is %g, want more than 0 and at most its limit %g",
                        damping, limit);
    if (!(params->damping_growth > 1.0 && isfinite(params->damping_growth)))
        return nyb_fail(err, NYB_E_ARG, "damping growth is %g, want more than 1",
                        params->damping_growth);
    if (params->grid.block != NYB_F32 && (params->refine > 0 || params->grid.reference))
        return nyb_fail(err, NYB_E_ARG, "the grid of %s is not refined, and the reference has none",
                        nyb_dtype_name(params->grid.block));
    if (params->grid.block != NYB_F32 && params->order == NYB_ORDER_FULL && !params->static_groups)
        return nyb_fail(err, NYB_E_ARG, "%s has no room for an order of groups: want static groups",
                        nyb_dtype_name(params->grid.block));
    if (params->block_cols == 0)
        return nyb_fail(err, NYB_E_ARG, "block_cols is 0, want 1 or more");
    if (params->refine > NYB_REFINE_MOST)
        return nyb_fail(err, NYB_E_ARG, "%u rounds of refinement, want at most %d", params->refine,
                        NYB_REFINE_MOST);
    return nyb_grid_check(&params->grid, cols, err);
}
