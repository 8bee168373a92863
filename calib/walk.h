// walk.h - the pass over the model in which every layer is solved.
#ifndef NYB_CALIB_WALK_H_
#define NYB_CALIB_WALK_H_

#include "calib/output.h"
#include "model/forward.h"

// Tokens whose inputs are gathered before they go into the Hessian: a multiple of
// NYB_HESSIAN_CHUNK, so that the bits do not depend on it.
enum { NYB_WALK_TILE = 2048 };

// Solves every layer of `job`, block by block and stage by stage, puts it into `out`, and commits
// each finished block. Blocks that out's journal has finished are run with their rounded weights
// as they were written, which gives the bits of an uninterrupted run.
//
// Errors as nyb_quantize(); the blocks committed so far stay committed.
NYB_NODISCARD nyb_status nyb_walk(const nyb_context *ctx, const nyb_job *job, nyb_output *out,
                                  nyb_err *err);

// Bytes that the walk holds at its peak, by what they are for.
typedef struct nyb_walk_bytes {
    size_t activations, weights, hessians, other;
} nyb_walk_bytes;

nyb_walk_bytes nyb_walk_memory(const nyb_context *ctx, const nyb_job *job);

#endif // NYB_CALIB_WALK_H_
