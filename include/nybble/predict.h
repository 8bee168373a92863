// predict.h - a Keras model run over samples.
#ifndef NYB_PREDICT_H_
#define NYB_PREDICT_H_

#include "nybble/context.h"
#include "nybble/tensor.h"

typedef struct nyb_predict_params {
    const char *model;         // .keras file, or a folder with config.json and weights
    const char *const *inputs; // [input_count] .npy files, one for each input in the model's order:
    size_t input_count;        // [samples, ...], floats or whole numbers up to 2^24
    const char *const *outputs; // [output_count] .npy files to write, one for each output
    size_t output_count;
} nyb_predict_params;

enum { NYB_PREDICT_OUTPUTS = 32 };

// What was written.
typedef struct nyb_predict_result {
    size_t samples;
    size_t output_count;
    unsigned rank[NYB_PREDICT_OUTPUTS]; // with the samples' axis
    size_t shape[NYB_PREDICT_OUTPUTS][NYB_MAX_RANK];
} nyb_predict_result;

// Runs a Sequential or Functional Keras 3 model and writes its outputs as f32. All arithmetic is
// f32 with sums in f64 where sums are long, whatever dtype policies say; the same bits for any
// number of threads. Some samples run together, and ctx->memory_bytes bounds the values of those.
//
//   result  out, may be NULL
//
// NYB_E_ARG          another number of files than the model has inputs or outputs.
// NYB_E_SHAPE        samples do not have the shape that the model takes.
// NYB_E_NUMERIC      a sample is NaN or infinite.
// NYB_E_UNSUPPORTED  a layer, or something about it, that is not known; err names it.
// NYB_E_FORMAT       a file breaks its format.
// NYB_E_IO           a file cannot be read or written.
// NYB_E_NOMEM        no room.
NYB_API NYB_NODISCARD nyb_status nyb_predict(const nyb_context *ctx,
                                             const nyb_predict_params *params,
                                             nyb_predict_result *result, nyb_err *err);

#endif // NYB_PREDICT_H_
