#include "ptq/tile.h"

#include <math.h>
#include <string.h>

// x - x is 0 for every number, and NaN for NaN and the infinities.
static bool all_finite(nyb_mat tile)
{
    float sum[NYB_LANES] = {0};
    for (size_t p = 0; p < tile.rows; p++) {
        const float *const value = nyb_row(tile, p);
        for (size_t lane = 0; lane < NYB_LANES; lane++)
            sum[lane] += value[lane] - value[lane];
    }
    float total = 0.0f;
    for (size_t lane = 0; lane < NYB_LANES; lane++)
        total += sum[lane];
    return total == 0.0f;
}

static void find_fault(nyb_mat w, size_t row0, size_t rows, nyb_tile_fault *fault)
{
    for (size_t i = row0; i < row0 + rows; i++) {
        for (size_t j = 0; j < w.cols; j++) {
            if (!isfinite(nyb_row(w, i)[j])) {
                *fault = (nyb_tile_fault){
                    .kind = NYB_FAULT_WEIGHT, .row = i, .place = j, .value = nyb_row(w, i)[j]};
                return;
            }
        }
    }
}

bool nyb_tile_load(nyb_mat out, nyb_mat w, size_t row0, size_t col0, const uint32_t *columns,
                   nyb_tile_fault *fault)
{
    // Sixteen columns at a time, so that a row's cache line is used up before it leaves.
    enum { STRIP = 16 };
    const size_t left = w.rows - row0, rows = left < NYB_LANES ? left : NYB_LANES;
    for (size_t p0 = 0; p0 < out.rows; p0 += STRIP) {
        const size_t p1 = p0 + STRIP < out.rows ? p0 + STRIP : out.rows;
        for (size_t lane = 0; lane < rows; lane++) {
            const float *const from = nyb_row(w, row0 + lane);
            for (size_t p = p0; p < p1; p++)
                nyb_row(out, p)[lane] = from[columns ? columns[p] : col0 + p];
        }
    }
    for (size_t p = 0; rows < NYB_LANES && p < out.rows; p++)
        memset(nyb_row(out, p) + rows, 0, (NYB_LANES - rows) * sizeof(float));
    if (all_finite(out))
        return true;
    find_fault(w, row0, rows, fault);
    return false;
}

nyb_status nyb_tile_report(const nyb_tile_fault *faults, size_t count, nyb_dtype scale_dtype,
                           nyb_err *err)
{
    for (size_t i = 0; i < count; i++) {
        const nyb_tile_fault fault = faults[i];
        switch (fault.kind) {
        case NYB_FAULT_NONE:
            break;
        case NYB_FAULT_WEIGHT:
            return nyb_fail(err, NYB_E_NUMERIC, "weight (%zu, %zu) is %g", fault.row, fault.place,
                            (double) fault.value);
        case NYB_FAULT_SCALE:
            return nyb_fail(err, NYB_E_NUMERIC,
                            "row %zu, group %zu needs a scale too large for %s: choose a wider "
                            "scale type",
                            fault.row, fault.place, nyb_dtype_name(scale_dtype));
        case NYB_FAULT_UPDATE:
            return nyb_fail(err, NYB_E_NUMERIC,
                            "the updates of row %zu overflowed: raise the damping", fault.row);
        }
    }
    return NYB_OK;
}
