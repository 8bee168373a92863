// activations.h - what the calibration tokens have become so far in the walk: the residual stream
// and the last stage's outputs. All of it is in memory when there is room; else one chunk of
// samples is, and the others lie in a nameless file.
//
// Chunks are made of whole units of samples, and a unit's sums never depend on what else is in its
// chunk, so the bits are the same whatever fits.
#ifndef NYB_CALIB_ACTIVATIONS_H_
#define NYB_CALIB_ACTIVATIONS_H_

#include "model/forward.h"

typedef struct nyb_activations {
    nyb_batch batch;        // the chunk at hand
    size_t samples, length; // of all
    size_t chunk_samples;   // of every chunk but the last
    size_t chunks;
    size_t chunk;     // that is in the batch
    size_t wide_cols; // of a row in the file, in f32
    int file;         // -1: there is one chunk and no file
} nyb_activations;

// The columns of a chunk that a step reads or leaves behind.
typedef struct nyb_activation_part {
    bool x;      // the residual stream
    size_t wide; // columns of f32 of the last stage's outputs
} nyb_activation_part;

// Samples of a unit: as many as make up `NYB_UNIT_TOKENS` tokens, at least one.
enum { NYB_UNIT_TOKENS = 2048 };
size_t nyb_activations_unit(size_t length);

// How many samples a chunk has, so that it takes at most `bytes` (0: no limit), but never less
// than a unit.
//
// operands, here and below: of the batch.
size_t nyb_activations_fit(const nyb_context *ctx, const nyb_model *model, size_t samples,
                           size_t length, nyb_dtype operands, size_t bytes);

// Bytes in memory with chunks of so many samples, and bytes in the file.
size_t nyb_activations_memory(const nyb_context *ctx, const nyb_model *model, size_t chunk_samples,
                              size_t length, nyb_dtype operands);
size_t nyb_activations_spill(const nyb_model *model, size_t chunk_samples, size_t samples,
                             size_t length, nyb_dtype operands);

typedef struct nyb_activations_params {
    size_t samples, length;
    size_t chunk_samples;
    nyb_dtype operands;
    const char *folder; // where the file goes, if one is needed
} nyb_activations_params;

// The file has no name and is gone with the process.
//
// NYB_E_NOMEM  no room.
// NYB_E_IO     the file cannot be made, or the disk has no room for it.
// After an error out holds nothing.
NYB_NODISCARD nyb_status nyb_activations_open(nyb_activations *out, const nyb_context *ctx,
                                              const nyb_model *model,
                                              const nyb_activations_params *params, nyb_err *err);
void nyb_activations_close(nyb_activations *a); // zeroed is fine

// Makes `chunk` the one in a->batch, and reads these parts of it.
//
// NYB_E_IO  the file cannot be read.
NYB_NODISCARD nyb_status nyb_activations_load(nyb_activations *a, size_t chunk,
                                              nyb_activation_part part, nyb_err *err);

// Keeps these parts of the chunk in a->batch.
//
// NYB_E_IO  the file cannot be written, for example because the disk is full.
NYB_NODISCARD nyb_status nyb_activations_save(const nyb_activations *a, nyb_activation_part part,
                                              nyb_err *err);

#endif // NYB_CALIB_ACTIVATIONS_H_
