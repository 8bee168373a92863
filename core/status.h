// status.h - writing an error: whoever detects a fault calls nyb_fail(), callers pass it on.
#ifndef NYB_CORE_STATUS_H_
#define NYB_CORE_STATUS_H_

#include "nybble/status.h"

// Writes the line into err (which may be NULL) and returns `status`, so that a detector is
// one statement: return nyb_fail(err, NYB_E_SHAPE, "...", ...);
__attribute__((format(printf, 3, 4))) nyb_status nyb_fail(nyb_err *err, nyb_status status,
                                                          const char *format, ...);

#endif // NYB_CORE_STATUS_H_
