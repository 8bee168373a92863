// gguf_plan.h - which tensors a GGUF file gets, of which type, and from where.
#ifndef NYB_CALIB_GGUF_PLAN_H_
#define NYB_CALIB_GGUF_PLAN_H_

#include "calib/gguf_file.h"
#include "model/gguf_config.h"
#include "model/model.h"

// A matrix of the source: one expert's where the file has those of all in one tensor.
typedef struct nyb_gguf_slice {
    const nyb_tensor *source; // NULL: quantised, or values
    const nyb_linear *linear; // the layer that it is the weight of; NULL: of none
} nyb_gguf_slice;

// One tensor of the file.
typedef struct nyb_gguf_item {
    const char *name;        // in the file
    const char *folder_name; // in a folder
    int expert;              // of those that are still to be joined
    nyb_gguf_slice slice;    // the one, where there is one
    const nyb_gguf_slice *slices;
    size_t slice_count;
    const float *values;     // computed
    const float *importance; // [slice_count, cols] of each input, NULL: not known
    nyb_dtype dtype, asked;  // in the file, before rows that do not fit changed it
    size_t rows, slice_rows, cols;
    unsigned rank;
    size_t shape[NYB_MAX_RANK];
    nyb_row_order order; // in the file
    float added;         // to each value
    size_t row_bytes, offset;
} nyb_gguf_item;

typedef struct nyb_gguf_plan {
    const nyb_gguf_params *params;
    nyb_arena arena;
    nyb_model *model;
    const nyb_gguf_arch *arch;
    nyb_gguf_head head;
    nyb_gguf_item *items;
    size_t count;
    size_t bytes; // of the file
} nyb_gguf_plan;

// On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_gguf_plan_open(nyb_gguf_plan *out, const nyb_gguf_params *params,
                                            nyb_err *err);
void nyb_gguf_plan_close(nyb_gguf_plan *plan);

#endif // NYB_CALIB_GGUF_PLAN_H_
