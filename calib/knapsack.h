// knapsack.h - one choice for each of many items, the least total loss within a budget.
#ifndef NYB_CALIB_KNAPSACK_H_
#define NYB_CALIB_KNAPSACK_H_

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nyb_choice {
    uint64_t cost; // >= 1
    double loss;   // >= 0
} nyb_choice;

typedef struct nyb_choices {
    const nyb_choice *at; // [count] 1 to 255
    size_t count;
} nyb_choices;

typedef struct nyb_packing {
    double loss;   // of what was chosen
    double bound;  // no choice within the budget has less; the loss itself when that is proven best
    uint64_t cost; // of what was chosen, <= budget
} nyb_packing;

// Solves the multiple-choice knapsack problem by dynamic programming over the cost (Kellerer,
// Pferschy, Pisinger, "Knapsack Problems", 2004, section 11.5): exact, in units of the costs' greatest common
// divisor. Where that would take more than `cells` bytes, costs are rounded up to larger units; then
// the same with costs rounded down gives the bound.
//
//   chosen  out, [count] index of each item's choice
//   cells   0: 256 MiB
//
// NYB_E_ARG    the cheapest choices together are above the budget; err has both.
// NYB_E_NOMEM  no room.
NYB_NODISCARD nyb_status nyb_knapsack(const nyb_choices *items, size_t count, uint64_t budget,
                                      size_t cells, size_t *chosen, nyb_packing *packing,
                                      nyb_err *err);

#endif // NYB_CALIB_KNAPSACK_H_
