// allocate.h - how many bits each layer of a model gets when all of them together have a budget.
#ifndef NYB_ALLOCATE_H_
#define NYB_ALLOCATE_H_

#include "nybble/quantize.h"

enum { NYB_ALLOCATE_BITS = 4, NYB_ALLOCATE_GROUPS = 8 }; // choices at most

// What is added up over layers.
typedef enum nyb_sensitivity {
    // How far the model's predictions move when the layer alone is rounded: measured at one group
    // size for 2 and for 3 bits (4, if that is the fewest), on tokens of the store; other choices by
    // their loss.
    NYB_SENSITIVITY_KL = 0,
    NYB_SENSITIVITY_RELATIVE, // |W x - Q x|^2 / |W x|^2
    NYB_SENSITIVITY_OUTPUT,   // |W x - Q x|^2
} nyb_sensitivity;

typedef struct nyb_allocate_params {
    // Model, store of Hessians (needed), format, recipe, settings. Layers that these do not solve
    // by gptq keep their settings, and count in the budget.
    nyb_quantize_params quantize;
    double target_bits; // of a weight, scales and zero points included, over all rounded layers
    unsigned bits[NYB_ALLOCATE_BITS]; // that a layer may get, [bit_count]; 0 of them: 2, 3, 4, 8
    size_t bit_count;
    size_t
        groups[NYB_ALLOCATE_GROUPS]; // [group_count] 0: the whole row; 0 of them: 32, 64, 128, row
    size_t group_count;
    nyb_sensitivity sensitivity;
    size_t samples;  // of the store, for NYB_SENSITIVITY_KL; 0: as many as make up 1,024 tokens
    bool alone;      // layers that read the same input may differ: not every reader takes that
    const char *out; // recipe to be made
    // JSON file of what is measured, which is taken from there if the file is there, and written to
    // it with the choice; NULL: none.
    const char *table;
    bool force; // replace the recipe, and a table of something else or damaged
} nyb_allocate_params;

typedef struct nyb_allocate_result {
    size_t layers;
    double bits_per_weight; // of what was chosen, at most target_bits
    double loss,
        bound; // its sum of sensitivities, and a sum that nothing within the budget is below
    double seconds;
} nyb_allocate_result;

// Solves every layer at every number of bits and every group size (with one round of refinement at
// most), and chooses for each so that the sum of sensitivities is the least within the budget, by
// dynamic programming. Choices that the format's readers do not take, or that do not fit a layer,
// are left out. The result is a recipe with an entry for each layer, for nyb_quantize().
//
// NYB_E_ARG          a parameter is outside its range, or the budget is below the smallest choices,
//                    or the table is of another store or other settings: err has the first
//                    difference.
// NYB_E_FORMAT       the table is damaged.
// NYB_E_UNSUPPORTED  a layer has no choice that the format holds.
// Others as nyb_quantize(). On an error no file is made.
NYB_API NYB_NODISCARD nyb_status nyb_allocate(const nyb_context *ctx,
                                              const nyb_allocate_params *params,
                                              nyb_allocate_result *result, nyb_err *err);

#endif // NYB_ALLOCATE_H_
