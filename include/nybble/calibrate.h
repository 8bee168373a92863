// calibrate.h - what the inputs of a model's layers are like: how they are spread, or the Hessians
// that GPTQ solves with.
#ifndef NYB_CALIBRATE_H_
#define NYB_CALIBRATE_H_

#include "nybble/quantize.h"

typedef struct nyb_calibrate_params {
    const char *model; // Hugging Face folder or GGUF file
    const char *out;   // file to be made
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
// least squared error and the least divergence of 8-bit whole numbers (see range.h). The file is
// JSON.
//
// NYB_E_ARG      a parameter is outside its range.
// NYB_E_EXISTS   the file is there and force is not set.
// NYB_E_NUMERIC  an input is NaN or infinite; err names the layer.
// NYB_E_NOMEM    memory ran out, or ctx->memory_bytes is less than the least the run needs.
// Others as the model's files and the samples give them. On an error no file is made.
NYB_API NYB_NODISCARD nyb_status nyb_calibrate(const nyb_context *ctx,
                                               const nyb_calibrate_params *params,
                                               nyb_calibrate_result *result, nyb_err *err);

// A store of Hessians: an HDF5 file, described in docs/store.md, that any number of quantisations
// of the model are made from (nyb_quantize_params.hessians).
typedef struct nyb_hessians_params {
    const char *model; // Hugging Face folder or GGUF file
    const char *out;   // HDF5 file to be made
    nyb_samples_params samples;
    nyb_expert_calibration experts;
    size_t part, parts; // run part 1 to `parts` of the windows alone; parts 0: all of them
    const char *extend; // a store of the first of the windows, which are not run again; NULL: none
    unsigned compression; // 1 (fast) to 9 (small), 0: none
    bool force;           // replace the file
} nyb_hessians_params;

#define NYB_HESSIANS_DEFAULTS ((nyb_hessians_params){.samples = NYB_SAMPLES_DEFAULTS})

// Runs the model as it is over the samples and writes the sum of x x^T over the tokens that count,
// for the input x of every linear layer of its blocks. Sums do not depend on the order of their
// terms, which are sums over units of samples (as many samples as make up 2,048 tokens): parts that
// are made apart and merged give the bytes of one run, as do runs with any number of threads and
// any ceiling for memory.
//
// NYB_E_ARG      a parameter is outside its range, or `extend` is a store of another model, of other
//                settings or of other windows.
// NYB_E_EXISTS   the file is there and force is not set.
// NYB_E_NUMERIC  an input is NaN, infinite, or too large for such sums; err names the layer.
// NYB_E_NOMEM    memory ran out, or ctx->memory_bytes is less than the least the run needs.
// Others as the files give them. On an error no file is made.
NYB_API NYB_NODISCARD nyb_status nyb_calibrate_hessians(const nyb_context *ctx,
                                                        const nyb_hessians_params *params,
                                                        nyb_calibrate_result *result, nyb_err *err);

// Puts stores together into params->out, their windows one behind the other; of params, `out`,
// `compression` and `force` are looked at.
//
//   stores  [count], 1 or more. All but the last hold whole units of samples: else the result
//           would not be that of one run.
//
// NYB_E_ARG     they are not of one model and one kind of settings, one but the last does not hold
//               whole units, or two of them hold the same window.
// NYB_E_FORMAT  one is damaged; err names the array.
// Others as above. On an error no file is made.
NYB_API NYB_NODISCARD nyb_status nyb_merge_hessians(const nyb_context *ctx,
                                                    const char *const *stores, size_t count,
                                                    const nyb_hessians_params *params,
                                                    nyb_calibrate_result *result, nyb_err *err);

#endif // NYB_CALIBRATE_H_
