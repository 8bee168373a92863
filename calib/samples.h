// samples.h - from a file of text or ids to the windows of tokens that a model is run on.
#ifndef NYB_CALIB_SAMPLES_H_
#define NYB_CALIB_SAMPLES_H_

#include "core/arena.h"
#include "model/model.h"
#include "nybble/samples.h"

// The tokens of a file, in an arena of its own.
typedef struct nyb_stream {
    nyb_arena arena;
    uint32_t *ids; // [count]
    size_t count;
    size_t row_length; // ready-made [samples, length] ids: their length; else 0
    bool begins;       // windows are to begin with `bos`
    uint32_t bos;
    size_t line_ends; // CR LF and CR that were read as LF
    const char *path; // the caller's
} nyb_stream;

// Reads and, if it is text, tokenizes the whole file with the tokenizer in the model's folder. Line
// ends of other systems (CR LF, CR) are read as LF, as text-mode reading does it elsewhere: models
// are trained on that.
//
// NYB_E_ARG          windows shall begin with a token that the tokenizer does not have.
// NYB_E_IO, NYB_E_FORMAT, NYB_E_UNSUPPORTED  from the file or the tokenizer.
// On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_stream_open(nyb_stream *out, const nyb_model *model, const char *path,
                                         nyb_bos bos, nyb_err *err);
void nyb_stream_close(nyb_stream *stream); // zeroed is fine

// Windows to calibrate with: equally long, and all different.
typedef struct nyb_samples {
    uint32_t *ids; // [count * length], in the stream's arena
    size_t count, length;
    size_t available; // windows that the file has
} nyb_samples;

// Cuts a stream into windows as params says; fewer, or one shorter window, where the stream is
// shorter, with a message to ctx.
//
// NYB_E_ARG    count is 0 or length below 2.
// NYB_E_SHAPE  the file has fewer than 2 tokens.
NYB_NODISCARD nyb_status nyb_samples_cut(const nyb_context *ctx, nyb_samples *out,
                                         nyb_stream *stream, const nyb_samples_params *params,
                                         nyb_err *err);

#endif // NYB_CALIB_SAMPLES_H_
