// probe.h - what this machine can do at most: the yardstick of every benchmark.
#ifndef NYB_BENCH_PROBE_H_
#define NYB_BENCH_PROBE_H_

#include "nybble/context.h"

// Seconds since some fixed moment; on one thread those of the processor that the process had, so
// that other programs do not count.
double probe_seconds(const nyb_context *ctx);

// Each in operations per second (a multiplication and an addition are two) on the threads of ctx,
// the best of some short runs. 0 where the CPU lacks the instruction.
double probe_f32(const nyb_context *ctx);
double probe_bf16(const nyb_context *ctx);
double probe_int8(const nyb_context *ctx);

// Bytes per second of reading memory far larger than the caches.
double probe_bandwidth(const nyb_context *ctx);

#endif // NYB_BENCH_PROBE_H_
