// tile.h - rows of a weight, transposed into lanes, and what can be wrong with them.
#ifndef NYB_PTQ_TILE_H_
#define NYB_PTQ_TILE_H_

#include "ptq/grid.h"

// What a tile's task found wrong. Tasks cannot return errors, so each has a slot of its own, and
// the first one that is set is reported: the same whatever order the tasks ran in.
typedef struct nyb_tile_fault {
    enum { NYB_FAULT_NONE = 0, NYB_FAULT_WEIGHT, NYB_FAULT_SCALE, NYB_FAULT_UPDATE } kind;
    size_t row, place; // place: a column, for NYB_FAULT_SCALE the group
    float value;       // the weight
} nyb_tile_fault;

// Rows of one tile; the last tile has fewer.
static inline size_t nyb_tile_count(size_t rows)
{
    return (rows + NYB_LANES - 1) / NYB_LANES;
}

static inline size_t nyb_tile_rows(size_t rows, size_t tile)
{
    const size_t left = rows - tile * NYB_LANES;
    return left < NYB_LANES ? left : NYB_LANES;
}

// out[p, lane] = w[row0 + lane, columns[p]], or column col0 + p when columns is NULL; zeros in the
// lanes behind w's last row. out has NYB_LANES columns. False, with *fault set, when one of the
// values is NaN or infinite.
bool nyb_tile_load(nyb_mat out, nyb_mat w, size_t row0, size_t col0, const uint32_t *columns,
                   nyb_tile_fault *fault);

// Reports the first fault of `count`.
//
// NYB_E_NUMERIC  as the fault says.
NYB_NODISCARD nyb_status nyb_tile_report(const nyb_tile_fault *faults, size_t count,
                                         nyb_dtype scale_dtype, nyb_err *err);

#endif // NYB_PTQ_TILE_H_
