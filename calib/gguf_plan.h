// gguf_plan.h - which tensors a GGUF file gets, of which type, and from where.
#ifndef NYB_CALIB_GGUF_PLAN_H_
#define NYB_CALIB_GGUF_PLAN_H_

#include "calib/gguf_file.h"
#include "formats/gguf_names.h"
#include "model/model.h"

// One tensor of the file.
typedef struct nyb_gguf_item {
    const char *name;         // in the file
    const char *folder_name;  // in a folder
    const nyb_tensor *source; // NULL: the linear is quantised, or `values` has it
    const nyb_linear *linear; // quantised in the source
    const float *values;      // computed
    const float *importance;  // [cols] of each input, NULL: not known
    nyb_dtype dtype, asked;   // in the file, before rows that do not fit changed it
    size_t rows, cols;
    unsigned rank;
    size_t shape[NYB_MAX_RANK];
    size_t paired; // rows of a head, to lie in pairs in the file
    float added;   // to each value
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
