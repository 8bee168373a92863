#include "core/cpu.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// Each level holds the ones before it.
static const struct {
    const char *name;
    const char *words;
    unsigned features;
} levels[] = {
    {"portable", "", 0},
    {"avx2", "avx2", NYB_CPU_AVX2},
    {"avx512", "avx2 avx512", NYB_CPU_AVX2 | NYB_CPU_AVX512},
    {"avx512vnni", "avx2 avx512 avx512vnni", NYB_CPU_AVX2 | NYB_CPU_AVX512 | NYB_CPU_AVX512VNNI},
    {"avx512bf16", "avx2 avx512 avx512vnni avx512bf16",
     NYB_CPU_AVX2 | NYB_CPU_AVX512 | NYB_CPU_AVX512VNNI | NYB_CPU_AVX512BF16},
};

enum { LEVELS = sizeof(levels) / sizeof(levels[0]) };

static size_t level_of(unsigned features)
{
    size_t best = 0;
    for (size_t i = 1; i < LEVELS; i++) {
        if ((levels[i].features & ~features) == 0)
            best = i;
    }
    return best;
}

unsigned nyb_cpu_detected(void)
{
    unsigned features = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        features |= NYB_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        features |= NYB_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni"))
        features |= NYB_CPU_AVX512VNNI;
    if (__builtin_cpu_supports("avx512bf16"))
        features |= NYB_CPU_AVX512BF16;
#endif
    return levels[level_of(features)].features;
}

unsigned nyb_cpu(void)
{
    const unsigned detected = nyb_cpu_detected();
    const char *const cap = getenv("NYB_CPU");
    for (size_t i = 0; cap && i < LEVELS; i++) {
        if (strcmp(levels[i].name, cap) == 0)
            return detected & levels[i].features;
    }
    return detected;
}

const char *nyb_cpu_level(unsigned features)
{
    return levels[level_of(features)].name;
}

const char *nyb_cpu_words(unsigned features)
{
    return levels[level_of(features)].words;
}
