// rotate.h - the same model with its residual stream rotated, so that no channel stands out.
//
// Source: Ashkboos et al., "SliceGPT", arXiv:2401.15024, section 3 (computational invariance): with Q
// orthogonal, RMS(x Q) = RMS(x), so a transformer whose norms have no gains of their own gives the same
// logits when its embedding becomes E Q, each matrix that reads the residual stream W Q, and each that
// writes to it Q^T W. Gains are first folded into the matrices that read the norms' outputs:
// W diag(g) Q. Ashkboos et al., "QuaRot", arXiv:2404.00456, use it before quantisation.
#ifndef NYB_ROTATE_H_
#define NYB_ROTATE_H_

#include <stdbool.h>
#include <stdint.h>

#include "nybble/context.h"

typedef struct nyb_rotate_params {
    const char *model;   // Hugging Face folder of floats, read only
    const char *out;     // folder to be made
    const char *format;  // type of the output's matrices: "f32", "bf16" or "f16"; NULL: "f32"
    uint64_t seed;       // of the signs and, where the width is no power of two, of a small matrix
    size_t shard_bytes;  // of one output file, 0: 5 GB
    bool force;          // replace an existing output folder
    const char *command; // that asked for the run, kept in the report; UTF-8, NULL: unknown
} nyb_rotate_params;

typedef struct nyb_rotate_result {
    size_t layers; // matrices that changed
    bool untied;   // the head has a tensor of its own now
    size_t bytes_in, bytes_out;
    double seconds;
} nyb_rotate_result;

// Writes params->model, rotated, into params->out: an ordinary checkpoint of the same architecture,
// with norms that have gains of 1. A head that was the embedding gets a tensor of its own, for the
// last norm's gains are folded into it. Sums are double, results rounded once, to the output's type.
//
// The output is written into "OUT.partial" and renamed when it is complete, synced and read back;
// OUT/nybble_report.json tells what was done. Holds one matrix at a time. The bytes depend on the seed,
// and not on the number of threads.
//
// NYB_E_ARG          the format is unknown.
// NYB_E_EXISTS       out is there, or OUT.partial (see force).
// NYB_E_UNSUPPORTED  the model is quantised, or a part of it does not go with a rotation: norms that
//                    take a mean, norms of outputs, learned positions; err names it.
// NYB_E_IO, NYB_E_FORMAT, NYB_E_NUMERIC, NYB_E_NOMEM, NYB_E_VERIFY  as nyb_quantize().
// On an error nothing is at `out`, and OUT.partial is gone.
NYB_API NYB_NODISCARD nyb_status nyb_rotate(const nyb_context *ctx, const nyb_rotate_params *params,
                                            nyb_rotate_result *result, nyb_err *err);

#endif // NYB_ROTATE_H_
