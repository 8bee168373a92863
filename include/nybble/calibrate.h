// calibrate.h - what the inputs of a model's layers are like.
#ifndef NYB_CALIBRATE_H_
#define NYB_CALIBRATE_H_

#include "nybble/context.h"
#include "nybble/samples.h"

typedef struct nyb_calibrate_params {
    const char *model; // Hugging Face folder or GGUF file
    const char *out;   // JSON file to be made
    nyb_samples_params samples;
    double percentile; // that is recorded, (50, 100]; 0: 99.99
    bool force;        // replace the file
} nyb_calibrate_params;

#define NYB_CALIBRATE_DEFAULTS ((nyb_calibrate_params){.samples = NYB_SAMPLES_DEFAULTS})

typedef struct nyb_calibrate_result {
    size_t layers, samples, tokens;
    double seconds;
} nyb_calibrate_result;

// Runs the model as it is over the samples and records for every linear layer of its blocks, over
// the tokens that count and reach it: how many they are, the smallest and the largest value of its
// input, the largest magnitude, the percentile of magnitudes, and the magnitudes to clip at for the
// least squared error and the least divergence of 8-bit whole numbers (see range.h).
//
// NYB_E_ARG      a parameter is outside its range.
// NYB_E_EXISTS   the file is there and force is not set.
// NYB_E_NUMERIC  an input is NaN or infinite; err names the layer.
// Others as the model's files and the samples give them. On an error no file is made.
NYB_API NYB_NODISCARD nyb_status nyb_calibrate(const nyb_context *ctx,
                                               const nyb_calibrate_params *params,
                                               nyb_calibrate_result *result, nyb_err *err);

#endif // NYB_CALIBRATE_H_
