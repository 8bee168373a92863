// room.h - what a run holds in memory at its peak, and the ceiling that it keeps to.
#ifndef NYB_CALIB_ROOM_H_
#define NYB_CALIB_ROOM_H_

#include "nybble/context.h"

// What the program and its libraries take before a run allocates anything.
enum { NYB_PROGRAM_BYTES = 40 << 20 };

// Bytes by what they are for. Activations get what the others leave under the ceiling.
typedef struct nyb_room {
    size_t activations, weights, hessians, other;
} nyb_room;

size_t nyb_room_total(const nyb_room *room);

// What the ceiling of ctx leaves beside weights, hessians and other: at least 1; 0: no ceiling.
size_t nyb_room_left(const nyb_context *ctx, const nyb_room *room);

// NYB_E_NOMEM  the total is above the ceiling of ctx; err has all four.
NYB_NODISCARD nyb_status nyb_room_check(const nyb_context *ctx, const nyb_room *room, nyb_err *err);

#endif // NYB_CALIB_ROOM_H_
