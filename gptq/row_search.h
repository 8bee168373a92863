// row_search.h - tabu search over the codes of one row.
#ifndef NYB_GPTQ_ROW_SEARCH_H_
#define NYB_GPTQ_ROW_SEARCH_H_

#include "kernels/codes.h"
#include "nybble/tensor.h"
#include "ptq/grid.h"

// Rows that are searched side by side: while one waits for what its last move led to, the other moves.
enum { NYB_SEARCH_ROWS = 2 };

// What all rows share. Arrays have `cols` elements, of which those behind h.rows only fill up the last
// lanes.
typedef struct nyb_row_search {
    nyb_mat h;             // [places, places] what is minimised, both triangles, zeros up to `cols`
    size_t cols;           // a multiple of NYB_MOVE_COLS
    const float *diagonal; // [places] of h; places at which it is 0 keep their codes
    const nyb_code_ops *ops;
    const nyb_grid_lanes *groups; // each group's grid
    size_t group_size;
    float top; // the highest code
} nyb_row_search;

// A row, by place.
typedef struct nyb_searched_row {
    size_t lane;         // of the grids
    float *slopes;       // D H, in and out
    float *steps;        // codes less zero points, in and out
    float *twice, *cost; // scratch, from here on; as in nyb_moves
    float *by;           // [moves] what its weight changed by
    uint32_t *column;    // [moves]
} nyb_searched_row;

// Elements of a row's arrays.
size_t nyb_row_search_cols(size_t places);

// Moves that a search of so many places makes.
size_t nyb_row_search_moves(size_t places);

// Makes the single-step move that changes D H D^T least for the worse, again and again, with the
// columns moved last left out; ends at the best codes on the way. D H D^T never rises. count: at most
// NYB_SEARCH_ROWS; each row's result is its own.
void nyb_row_search_run(const nyb_row_search *search, const nyb_searched_row *rows, size_t count);

#endif // NYB_GPTQ_ROW_SEARCH_H_
