// context.h - what every long-running call is told by its caller: how many threads, how much
// memory, and where messages and progress go. The library itself never prints and never exits.
#ifndef NYB_CONTEXT_H_
#define NYB_CONTEXT_H_

#include <stddef.h>
#include <stdint.h>

#include "nybble/status.h"

typedef enum nyb_log_level {
    NYB_LOG_ERROR = 0,
    NYB_LOG_WARNING,
    NYB_LOG_INFO,
    NYB_LOG_DEBUG,
} nyb_log_level;

// One step forward of a long job. Strings live until the callback returns.
typedef struct nyb_progress {
    const char *stage; // "hash", "calibrate", "evaluate", ...
    const char *item;  // what is being worked on, for example a tensor's name; may be NULL
    const char *unit;  // of done and total, plural: "layers", "tokens", "bytes"
    uint64_t done, total;
} nyb_progress;

// What matrix products are made of in a forward pass and in Hessians.
typedef enum nyb_compute {
    NYB_COMPUTE_AUTO = 0, // what the call says that it does by default, else f32
    NYB_COMPUTE_F32,
    NYB_COMPUTE_BF16, // operands rounded to bf16, sums in f32
} nyb_compute;

// A plain struct of settings; copy it freely. Zero-initialised it means: all CPUs that the
// process may run on, no ceiling, silence. Results never depend on `threads`.
typedef struct nyb_context {
    unsigned threads;    // worker threads, 0: one for each CPU in the affinity mask
    size_t memory_bytes; // ceiling for buffers that nybble sizes itself, 0: none
    nyb_compute compute; // results depend on it
    void *user;          // handed to the callbacks
    void (*log)(void *user, nyb_log_level level, const char *line); // may be NULL
    void (*progress)(void *user, const nyb_progress *step);         // may be NULL
} nyb_context;

#endif // NYB_CONTEXT_H_
