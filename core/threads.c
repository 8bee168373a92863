#define _GNU_SOURCE // sched_getaffinity
#include "core/threads.h"

#include <omp.h>
#include <sched.h>

unsigned nyb_threads(const nyb_context *ctx)
{
    if (ctx && ctx->threads)
        return ctx->threads;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof(mask), &mask) != 0)
        return (unsigned) omp_get_num_procs();
    const int cpus = CPU_COUNT(&mask);
    return cpus > 0 ? (unsigned) cpus : 1;
}

void nyb_parallel(const nyb_context *ctx, size_t count,
                  void (*task)(void *arg, size_t index, unsigned worker), void *arg)
{
    unsigned threads = nyb_threads(ctx);
    if (threads > count)
        threads = count ? (unsigned) count : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t i = 0; i < count; i++)
        task(arg, i, (unsigned) omp_get_thread_num());
}
