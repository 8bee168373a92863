// Prints what this machine does at most: arithmetic of three types and reading memory, on one
// thread and on all.
#include <stdio.h>

#include "bench/probe.h"
#include "core/cpu.h"
#include "core/threads.h"

int main(void)
{
    const nyb_context one = {.threads = 1}, all = {0};
    static const struct {
        const char *name, *unit;
        double (*probe)(const nyb_context *ctx);
    } probes[] = {
        {"f32 multiply-add", "GFLOP/s", probe_f32},
        {"bf16 pair product", "GFLOP/s", probe_bf16},
        {"int8 product", "GOP/s", probe_int8},
        {"memory read", "GB/s", probe_bandwidth},
    };
    printf("%s, %u threads\n", nyb_cpu_words(nyb_cpu_detected()), nyb_threads(&all));
    printf("%-20s %12s %12s\n", "", "1 thread", "all threads");
    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
        printf("%-20s %12.0f %12.0f %s\n", probes[i].name, probes[i].probe(&one) * 1e-9,
               probes[i].probe(&all) * 1e-9, probes[i].unit);
    return 0;
}
