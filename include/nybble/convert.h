// convert.h - a quantised checkpoint in another layout with the very same numbers, or as floats.
#ifndef NYB_CONVERT_H_
#define NYB_CONVERT_H_

#include <stdbool.h>

#include "nybble/context.h"

typedef struct nyb_convert_params {
    const char *model;   // Hugging Face folder, read only
    const char *out;     // folder to be made
    const char *format;  // a weight layout's name; or "bf16", "f16", "f32": floats; or "keras"
    size_t shard_bytes;  // of one output file, 0: 5 GB
    bool force;          // replace an existing output folder
    const char *command; // that asked for the run, kept in the report; UTF-8, NULL: unknown
} nyb_convert_params;

typedef struct nyb_convert_result {
    size_t layers;              // quantised layers of the source
    bool exact;                 // the output's weights are those of the source, bit for bit in f32
    size_t bytes_in, bytes_out; // tensor files
    double seconds;
} nyb_convert_result;

// Converts params->model into params->out.
//
// To a layout: codes, scales, zero points and groups are repacked, so that dequantised weights are
// equal bit for bit; everything else is copied. What the layout or its readers cannot hold is
// refused before anything is written: err names the layer, both values and the way out.
//
// To a KerasHub preset: every number stays, in the type that all tensors have to share; models that
// KerasHub has no class for, or computes otherwise, are refused. The tokenizer stays behind.
//
// To floats: quantised layers are dequantised in f32 and rounded to the type once; the other
// matrices of the model become that type too, and vectors (norms, biases) stay as they are. A
// checkpoint without quantised layers is taken as well.
//
// The output is written into "OUT.partial" and renamed when it is complete, synced and read back;
// OUT/nybble_report.json tells what was done. Holds one layer for each thread.
//
// NYB_E_ARG          the format is unknown, or there is nothing to convert.
// NYB_E_EXISTS       out is there, or OUT.partial (see force).
// NYB_E_IO, NYB_E_FORMAT, NYB_E_NUMERIC, NYB_E_NOMEM  as nyb_quantize().
// NYB_E_UNSUPPORTED  the layout cannot hold these numbers, or the model is unknown.
// NYB_E_VERIFY       what was read back differs.
// On an error nothing is at `out`, and OUT.partial is gone.
NYB_API NYB_NODISCARD nyb_status nyb_convert(const nyb_context *ctx,
                                             const nyb_convert_params *params,
                                             nyb_convert_result *result, nyb_err *err);

#endif // NYB_CONVERT_H_
