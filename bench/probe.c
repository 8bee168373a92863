#include "bench/probe.h"

#include <stdint.h>
#include <string.h>

#include "core/clock.h"
#include "core/cpu.h"
#include "core/memory.h"
#include "core/threads.h"

typedef double loop(float *sink); // runs for about a millisecond, returns the operations done

#if defined(__x86_64__)
#include <immintrin.h>

// Sums in flight: more than the latency of the instructions times their number per cycle.
enum { SUMS = 12, STEPS = 200000 };

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif

// A loop of SUMS independent instructions s = step(s, x); the empty assembly keeps the compiler
// from seeing through it.
#define LOOP(name, isa, vector, step, each)                                                        \
    __attribute__((target(isa))) static double name(float *sink)                                   \
    {                                                                                              \
        vector s[SUMS], x = {0};                                                                   \
        __asm__ volatile("" : "+v"(x));                                                            \
        UNROLL                                                                                     \
        for (int i = 0; i < SUMS; i++)                                                             \
            s[i] = x;                                                                              \
        for (int n = 0; n < STEPS; n++) {                                                          \
            UNROLL                                                                                 \
            for (int i = 0; i < SUMS; i++) {                                                       \
                s[i] = step;                                                                       \
                __asm__ volatile("" : "+v"(s[i]));                                                 \
            }                                                                                      \
        }                                                                                          \
        UNROLL                                                                                     \
        for (int i = 0; i < SUMS; i++)                                                             \
            memcpy(sink, &s[i], sizeof(s[i]));                                                     \
        return (double) SUMS * STEPS * (double) (sizeof(vector) / 4) * (each);                     \
    }

LOOP(f32_avx2, "avx2,fma", __m256, _mm256_fmadd_ps(x, x, s[i]), 2.0)
LOOP(f32_avx512, "avx512f", __m512, _mm512_fmadd_ps(x, x, s[i]), 2.0)
LOOP(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_dpbf16_ps(s[i], (__m512bh) x, (__m512bh) x),
     4.0)
LOOP(int8_avx512, "avx512f,avx512vnni", __m512i, _mm512_dpbusd_epi32(s[i], x, x), 8.0)
#endif

double probe_seconds(const nyb_context *ctx)
{
    struct timespec now;
    if (nyb_threads(ctx) > 1)
        return nyb_seconds();
    (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

typedef struct runs {
    loop *run;
    double operations[256]; // of each thread's share
} runs;

static void run_one(void *arg, size_t index, unsigned worker)
{
    runs *const r = arg;
    float sink[16];
    (void) worker;
    r->operations[index] = r->run(sink);
}

static double best_of(const nyb_context *ctx, loop *run)
{
    enum { TIMES = 7, TASKS = 4 };
    const unsigned threads = nyb_threads(ctx) > 64 ? 64 : nyb_threads(ctx);
    runs r = {.run = run};
    double best = 0.0;
    for (int i = 0; i < TIMES; i++) {
        const double start = probe_seconds(ctx);
        nyb_parallel(ctx, threads * TASKS, run_one, &r);
        const double seconds = probe_seconds(ctx) - start;
        double total = 0.0;
        for (unsigned t = 0; t < threads * TASKS; t++)
            total += r.operations[t];
        best = total / seconds > best ? total / seconds : best;
    }
    return best;
}

double probe_f32(const nyb_context *ctx)
{
#if defined(__x86_64__)
    if (nyb_cpu_detected() & NYB_CPU_AVX512)
        return best_of(ctx, f32_avx512);
    if (nyb_cpu_detected() & NYB_CPU_AVX2)
        return best_of(ctx, f32_avx2);
#endif
    (void) ctx;
    return 0.0;
}

double probe_bf16(const nyb_context *ctx)
{
#if defined(__x86_64__)
    if (nyb_cpu_detected() & NYB_CPU_AVX512BF16)
        return best_of(ctx, bf16_avx512);
#endif
    (void) ctx;
    return 0.0;
}

double probe_int8(const nyb_context *ctx)
{
#if defined(__x86_64__)
    if (nyb_cpu_detected() & NYB_CPU_AVX512VNNI)
        return best_of(ctx, int8_avx512);
#endif
    (void) ctx;
    return 0.0;
}

enum { READ_WORDS = 1 << 23, READERS = 8 };

typedef struct reading {
    const uint64_t *at;
    uint64_t sums[READERS];
} reading;

static void read_one(void *arg, size_t index, unsigned worker)
{
    reading *const r = arg;
    const uint64_t *const at = r->at + index * READ_WORDS;
    uint64_t sums[8] = {0};
    (void) worker;
    for (size_t i = 0; i < READ_WORDS; i += 8) {
        for (size_t k = 0; k < 8; k++)
            sums[k] += at[i + k];
    }
    for (size_t k = 0; k < 8; k++)
        r->sums[index] += sums[k];
}

double probe_bandwidth(const nyb_context *ctx)
{
    enum { TIMES = 5 };
    const size_t bytes = (size_t) READERS * READ_WORDS * sizeof(uint64_t);
    uint64_t *const memory = nyb_alloc_raw(bytes, 1);
    double best = 0.0;
    if (!memory)
        return 0.0;
    memset(memory, 1, bytes);
    reading r = {.at = memory};
    for (int i = 0; i < TIMES; i++) {
        const double start = probe_seconds(ctx);
        nyb_parallel(ctx, READERS, read_one, &r);
        const double rate = (double) bytes / (probe_seconds(ctx) - start);
        best = rate > best ? rate : best;
    }
    nyb_free(memory);
    return best;
}
