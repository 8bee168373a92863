// gguf_file.h - a model as one GGUF file: its metadata, its tokenizer, and its weights, as they are
// or rounded to a block type.
#ifndef NYB_CALIB_GGUF_FILE_H_
#define NYB_CALIB_GGUF_FILE_H_

#include "core/json.h"
#include "nybble/quantize.h"

typedef struct nyb_gguf_params {
    const char *model;   // folder or GGUF file
    const char *names;   // folder whose tokenizer and config.json count; NULL: model
    const char *out;     // file
    nyb_dtype dtype;     // of matrices: f32, f16, bf16 or a block type that can be written
    const char *imatrix; // importance matrix to round by; NULL: none
    bool exact;          // layers that are quantised already have to keep their values
    bool force;          // replace a file
    json_t *report;      // borrowed, may be NULL: put into the report as "solve"
} nyb_gguf_params;

// The type behind "Q4_0", "F16", ...; false for words that name no type that can be written.
bool nyb_gguf_type_named(const char *name, nyb_dtype *out);

// Writes the file, and beside it "<out>.report.json". Rows that are no whole blocks of the type
// get another one, which the report and a message name. Values are computed in parallel and do not
// depend on the number of threads.
//
// NYB_E_EXISTS       out is there and not to be replaced.
// NYB_E_UNSUPPORTED  the model has something that GGUF, or with `exact` the type, cannot hold.
// NYB_E_NUMERIC      a weight is not finite, or too large for a scale.
// Others as nyb_quantize(). On an error nothing is at `out`.
NYB_NODISCARD nyb_status nyb_gguf_file_write(const nyb_context *ctx, const nyb_gguf_params *params,
                                             nyb_quantize_result *result, nyb_err *err);

#endif // NYB_CALIB_GGUF_FILE_H_
