#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const names[NYB_STATUS_COUNT] = {
    [NYB_OK] = "ok",
    [NYB_E_ARG] = "argument",
    [NYB_E_SHAPE] = "shape",
    [NYB_E_FORMAT] = "format",
    [NYB_E_IO] = "io",
    [NYB_E_NOMEM] = "memory",
    [NYB_E_NOT_PD] = "not-positive-definite",
    [NYB_E_NUMERIC] = "numeric",
    [NYB_E_UNSUPPORTED] = "unsupported",
    [NYB_E_EXISTS] = "exists",
    [NYB_E_VERIFY] = "verify",
};

const char *nyb_status_name(nyb_status status)
{
    return (unsigned) status < NYB_STATUS_COUNT ? names[status] : "unknown";
}

nyb_status nyb_fail(nyb_err *err, nyb_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        (void) vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
    }
    return status;
}
