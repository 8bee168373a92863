#include "calib/room.h"

#include "core/status.h"

static size_t fixed(const nyb_room *room)
{
    return room->weights + room->hessians + room->other;
}

size_t nyb_room_total(const nyb_room *room)
{
    return fixed(room) + room->activations;
}

size_t nyb_room_left(const nyb_context *ctx, const nyb_room *room)
{
    const size_t ceiling = ctx ? ctx->memory_bytes : 0;
    if (ceiling == 0)
        return 0;
    return ceiling > fixed(room) ? ceiling - fixed(room) : 1;
}

nyb_status nyb_room_check(const nyb_context *ctx, const nyb_room *room, nyb_err *err)
{
    const size_t total = nyb_room_total(room);
    if (!ctx || ctx->memory_bytes == 0 || total <= ctx->memory_bytes)
        return NYB_OK;
    return nyb_fail(err, NYB_E_NOMEM,
                    "the run needs at least %zu MiB (activations %zu, weights %zu, Hessians %zu, "
                    "other %zu) and the ceiling is %zu MiB: raise --memory, or lower "
                    "--sequence-length",
                    total >> 20, room->activations >> 20, room->weights >> 20, room->hessians >> 20,
                    room->other >> 20, ctx->memory_bytes >> 20);
}
