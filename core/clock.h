// clock.h - elapsed time.
#ifndef NYB_CORE_CLOCK_H_
#define NYB_CORE_CLOCK_H_

#include <time.h>

// Seconds since some fixed moment, never going back.
static inline double nyb_seconds(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

#endif // NYB_CORE_CLOCK_H_
