#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

void nyb_log(const nyb_context *ctx, nyb_log_level level, const char *format, ...)
{
    char line[1024];
    if (!ctx || !ctx->log)
        return;
    va_list args;
    va_start(args, format);
    (void) vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    ctx->log(ctx->user, level, line);
}

void nyb_step(const nyb_context *ctx, const nyb_progress *step)
{
    if (ctx && ctx->progress)
        ctx->progress(ctx->user, step);
}
