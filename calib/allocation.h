// allocation.h - what choosing bits layer by layer works with: measured from the Hessians, or read
// from a table that an earlier run wrote.
#ifndef NYB_CALIB_ALLOCATION_H_
#define NYB_CALIB_ALLOCATION_H_

#include <math.h>

#include "calib/divergence.h"
#include "calib/job.h"
#include "calib/knapsack.h"
#include "calib/pass.h"
#include "nybble/allocate.h"

enum { NYB_ALLOCATE_OPTIONS = NYB_ALLOCATE_BITS * NYB_ALLOCATE_GROUPS };

// One way to round a layer, or the layers of a stage.
typedef struct nyb_bits_option {
    unsigned bits;
    size_t group_size;
} nyb_bits_option;

// Layers that get the same bits: those of a stage, or one.
typedef struct nyb_bits_item {
    nyb_choice choices[NYB_ALLOCATE_OPTIONS];
    uint8_t options[NYB_ALLOCATE_OPTIONS]; // which option each choice is
    nyb_choices list;
    size_t chosen;
    // By place in the list of bits: the option that was tried, and what came of it; NaN: not tried.
    size_t probed[NYB_ALLOCATE_BITS];
    double kl[NYB_ALLOCATE_BITS];
} nyb_bits_item;

typedef struct nyb_bits_layer {
    const nyb_job_layer *layer;
    size_t item;
    double energy; // tr(W H W^T)
    uint64_t bits[NYB_ALLOCATE_OPTIONS];
    double loss[NYB_ALLOCATE_OPTIONS]; // NaN: not held
    float *rounded;                    // [rows, cols] while the stage is measured; NULL: not needed
} nyb_bits_layer;

typedef struct nyb_allocation {
    const nyb_context *ctx;
    const nyb_allocate_params *params;
    nyb_job job;
    nyb_arena arena;
    nyb_bits_option
        options[NYB_ALLOCATE_OPTIONS]; // all bits of the first group size, of the next, ...
    size_t option_count, bit_count;
    size_t samples;         // that divergence is taken on; 0: it is not asked for
    nyb_bits_layer *layers; // [count] in the order of the model; those of an item follow each other
    size_t count;
    nyb_bits_item *items; // [item_count]
    size_t item_count;
    uint64_t fixed; // bits of the layers that keep their settings
    double weights; // of all rounded layers
    nyb_packing packing;
} nyb_allocation;

// Measures every layer at every option, with the numbers rounded to what the table holds. Errors as
// nyb_allocate().
NYB_NODISCARD nyb_status nyb_allocation_measure(nyb_allocation *a, nyb_err *err);

// Takes from the table at params->table what nyb_allocation_measure() would measure.
//
// NYB_E_ARG     it was measured of something else, or otherwise: err has the first difference.
// NYB_E_FORMAT  it is no table, or damaged.
NYB_NODISCARD nyb_status nyb_allocation_load(nyb_allocation *a, nyb_err *err);

// Writes what was measured and chosen to params->table.
NYB_NODISCARD nyb_status nyb_allocation_save(const nyb_allocation *a, nyb_err *err);

// -1 in place of 0, as users write it.
static inline json_int_t nyb_group_word(size_t group_size)
{
    return group_size ? (json_int_t) group_size : -1;
}

// One past the last layer of the item that begins with layer `first`.
static inline size_t nyb_item_end(const nyb_allocation *a, size_t first)
{
    size_t end = first + 1;
    while (end < a->count && a->layers[end].item == a->layers[first].item)
        end++;
    return end;
}

// Whether all of these layers have the option.
static inline bool nyb_option_held(const nyb_bits_layer *layers, size_t count, size_t option)
{
    for (size_t i = 0; i < count; i++) {
        if (isnan(layers[i].loss[option]))
            return false;
    }
    return true;
}

#endif // NYB_CALIB_ALLOCATION_H_
