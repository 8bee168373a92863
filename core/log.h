// log.h - messages and progress to the caller's callbacks.
#ifndef NYB_CORE_LOG_H_
#define NYB_CORE_LOG_H_

#include "nybble/context.h"

// Formats one line and hands it to ctx->log. Does nothing without ctx or a callback.
__attribute__((format(printf, 3, 4))) void nyb_log(const nyb_context *ctx, nyb_log_level level,
                                                   const char *format, ...);

// Hands one step to ctx->progress. Does nothing without ctx or a callback.
void nyb_step(const nyb_context *ctx, const nyb_progress *step);

#endif // NYB_CORE_LOG_H_
