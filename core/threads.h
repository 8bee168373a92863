// threads.h - the one way to run work on several threads.
//
// Work is cut into tasks by shape alone, never by the number of threads, and a task's result
// depends on its index alone: that is how the same bits come out at any thread count.
#ifndef NYB_CORE_THREADS_H_
#define NYB_CORE_THREADS_H_

#include "nybble/context.h"

// Threads that ctx asks for: its own number, else the CPUs in the affinity mask. ctx may be
// NULL. At least 1.
unsigned nyb_threads(const nyb_context *ctx);

// Calls task(arg, i, worker) once for each i in [0, count), on nyb_threads(ctx) threads that
// take the next index as they become free, and returns when all are done. `worker` is in
// [0, nyb_threads(ctx)) and names a thread's own scratch. The calling thread works too and never
// waits for a thread that has no task. Several threads may call at the same time, and a task may
// call: one of them gets help, the others work alone, as worker 0.
void nyb_parallel(const nyb_context *ctx, size_t count,
                  void (*task)(void *arg, size_t index, unsigned worker), void *arg);

#endif // NYB_CORE_THREADS_H_
