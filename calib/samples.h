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
    size_t line_ends;     // CR LF and CR that were read as LF
    unsigned char *marks; // [count] 1: the token counts; NULL: all do
    size_t *documents;    // [document_count + 1] where each begins; NULL: one document
    size_t document_count;
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

// The same for calibration, where `params` may ask for conversations.
//
// NYB_E_UNSUPPORTED  the file is a parquet file; err has a hint.
NYB_NODISCARD nyb_status nyb_stream_open_for(nyb_stream *out, const nyb_model *model,
                                             const char *path, const nyb_samples_params *params,
                                             nyb_err *err);
void nyb_stream_close(nyb_stream *stream); // zeroed is fine

// Windows to calibrate with, all different.
typedef struct nyb_samples {
    nyb_arena arena;
    uint32_t *ids;        // [count * length] shorter samples are filled up behind their end
    unsigned char *marks; // [count * length] 1: the token counts; NULL: all do
    size_t count, length;
    size_t counted;      // tokens that count
    size_t available;    // windows that the files have
    bool begins;         // some windows begin with a begin-of-sequence token
    size_t first_weight; // how often the first token of each counts in the Hessians
} nyb_samples;

// Whether the files of params are there, before anything that takes long or depends on more.
//
// NYB_E_IO   one is missing, or may not be read.
// NYB_E_ARG  a weight is no number above 0.
NYB_NODISCARD nyb_status nyb_samples_found(const nyb_samples_params *params, nyb_err *err);

// Reads the files of params and cuts them into windows; fewer, or one shorter window, where a file
// is shorter, with a message to ctx.
//
// NYB_E_ARG    count is 0, length below 2, first_weight out of its range, a weight is no number above 0 or leaves its file no
//              window, or no token counts.
// NYB_E_SHAPE  a file has fewer than 2 tokens.
// Errors of nyb_stream_open_for() as well. On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_samples_open(const nyb_context *ctx, nyb_samples *out,
                                          const nyb_model *model, const nyb_samples_params *params,
                                          nyb_err *err);
void nyb_samples_close(nyb_samples *samples); // zeroed is fine

#endif // NYB_CALIB_SAMPLES_H_
