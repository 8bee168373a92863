// walk.h - the pass over the model in which every layer is solved.
#ifndef NYB_CALIB_WALK_H_
#define NYB_CALIB_WALK_H_

#include "calib/activations.h"
#include "calib/output.h"
#include "calib/room.h"

// Solves every layer of `job`, block by block and stage by stage, puts it into `out`, and commits
// each finished block. Blocks that out's journal has finished are run with their rounded weights
// as they were written, which gives the bits of an uninterrupted run.
//
// Errors as nyb_quantize(); the blocks committed so far stay committed.
NYB_NODISCARD nyb_status nyb_walk(const nyb_context *ctx, const nyb_job *job, nyb_output *out,
                                  nyb_err *err);

// What the walk holds; activations that there is no room for go to disk.
typedef struct nyb_walk_bytes {
    nyb_room room;
    size_t chunk_samples; // samples whose activations are in memory together
    nyb_dtype operands;   // what the next stage multiplies of them
    size_t spilled;       // bytes on disk, 0: none
} nyb_walk_bytes;

// Whether blocks are loaded as wholes: their layers see each other's outputs, or stored Hessians.
// Else one layer after the other is read and rounded.
bool nyb_walk_needs_blocks(const nyb_job *job);

nyb_walk_bytes nyb_walk_memory(const nyb_context *ctx, const nyb_job *job);

#endif // NYB_CALIB_WALK_H_
