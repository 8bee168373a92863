#define _GNU_SOURCE // sched_getaffinity
#include "core/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "core/clock.h"

unsigned nyb_threads(const nyb_context *ctx)
{
    if (ctx && ctx->threads)
        return ctx->threads;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(0, sizeof(mask), &mask) != 0)
        return online > 0 ? (unsigned) online : 1;
    const int cpus = CPU_COUNT(&mask);
    return cpus > 0 ? (unsigned) cpus : 1;
}

// The helpers of the calling thread. They live as long as the process and sleep when there is
// nothing to do. A call opens its work to them, does all that is not taken yet, closes it, and
// waits for those that are still at a task: a helper that did not get a CPU in the meantime holds
// nobody up, and one that finds a call closed goes on waiting. This is the library's one piece of
// changing state; a call that finds it in use by another thread works alone.
enum { MOST_HELPERS = 1023 };

static const double spin_seconds = 5e-5; // waiting awake: longer than the serial parts of a token

typedef struct job {
    void (*task)(void *arg, size_t index, unsigned worker);
    void *arg;
    size_t count;
    unsigned threads;
} job;

static struct {
    pthread_mutex_t caller; // held by the thread whose helpers they are
    unsigned helpers;       // that were started; the caller's

    job job;                     // valid while `open` is not 0 or `inside` is not 0
    _Atomic(unsigned long) open; // the number of the open call, 0: none
    atomic_size_t next;          // the next index to be taken
    atomic_uint inside;          // helpers that are looking at the job

    pthread_mutex_t sleep; // guards the two conditions
    pthread_cond_t opened, left;
    atomic_uint asleep;  // helpers
    atomic_bool waiting; // the caller sleeps until inside is 0
} pool = {
    .caller = PTHREAD_MUTEX_INITIALIZER,
    .sleep = PTHREAD_MUTEX_INITIALIZER,
    .opened = PTHREAD_COND_INITIALIZER,
    .left = PTHREAD_COND_INITIALIZER,
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_tasks(const job *j, unsigned worker)
{
    for (size_t i; (i = atomic_fetch_add(&pool.next, 1)) < j->count;)
        j->task(j->arg, i, worker);
}

// Waits for a call other than `seen` and returns its number.
static unsigned long wait_for_call(unsigned long seen)
{
    const double start = nyb_seconds();
    for (unsigned turn = 1;; turn++) {
        const unsigned long now = atomic_load(&pool.open);
        if (now != 0 && now != seen)
            return now;
        relax();
        if (turn % 64 == 0 && nyb_seconds() - start > spin_seconds)
            break;
    }
    unsigned long now;
    (void) pthread_mutex_lock(&pool.sleep);
    atomic_fetch_add(&pool.asleep, 1);
    while ((now = atomic_load(&pool.open)) == 0 || now == seen)
        (void) pthread_cond_wait(&pool.opened, &pool.sleep);
    atomic_fetch_sub(&pool.asleep, 1);
    (void) pthread_mutex_unlock(&pool.sleep);
    return now;
}

static void leave(void)
{
    if (atomic_fetch_sub(&pool.inside, 1) != 1 || !atomic_load(&pool.waiting))
        return;
    (void) pthread_mutex_lock(&pool.sleep);
    (void) pthread_cond_signal(&pool.left);
    (void) pthread_mutex_unlock(&pool.sleep);
}

static void *help(void *number)
{
    const unsigned worker = (unsigned) (size_t) number;
    for (unsigned long seen = 0;;) {
        seen = wait_for_call(seen);
        // Between going inside and finding the call open the caller cannot end it.
        atomic_fetch_add(&pool.inside, 1);
        const unsigned long now = atomic_load(&pool.open);
        if (now != 0) {
            seen = now;
            if (worker < pool.job.threads)
                take_tasks(&pool.job, worker);
        }
        leave();
    }
    return NULL;
}

// Starts helpers until there are `wanted`, or as many as the system gives.
static void start_helpers(unsigned wanted)
{
    sigset_t all, before;
    if (pool.helpers >= wanted)
        return;
    // Signals are the business of the program's own threads.
    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.helpers < wanted && pool.helpers < MOST_HELPERS) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, (void *) (size_t) (pool.helpers + 1)) != 0)
            break;
        (void) pthread_detach(thread);
        pool.helpers++;
    }
    (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void wait_for_helpers(void)
{
    const double start = nyb_seconds();
    for (unsigned turn = 1; atomic_load(&pool.inside) != 0; turn++) {
        relax();
        if (turn % 64 == 0 && nyb_seconds() - start > spin_seconds)
            break;
    }
    if (atomic_load(&pool.inside) == 0)
        return;
    (void) pthread_mutex_lock(&pool.sleep);
    atomic_store(&pool.waiting, true);
    while (atomic_load(&pool.inside) != 0)
        (void) pthread_cond_wait(&pool.left, &pool.sleep);
    atomic_store(&pool.waiting, false);
    (void) pthread_mutex_unlock(&pool.sleep);
}

static void run_together(const job *j)
{
    static unsigned long calls; // guarded by pool.caller
    start_helpers(j->threads - 1);
    pool.job = *j;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.open, ++calls);
    if (atomic_load(&pool.asleep) != 0) {
        (void) pthread_mutex_lock(&pool.sleep);
        (void) pthread_cond_broadcast(&pool.opened);
        (void) pthread_mutex_unlock(&pool.sleep);
    }
    take_tasks(j, 0);
    atomic_store(&pool.open, 0);
    wait_for_helpers();
}

void nyb_parallel(const nyb_context *ctx, size_t count,
                  void (*task)(void *arg, size_t index, unsigned worker), void *arg)
{
    job j = {.task = task, .arg = arg, .count = count, .threads = nyb_threads(ctx)};
    if (j.threads > count)
        j.threads = count ? (unsigned) count : 1;
    if (j.threads > 1 && pthread_mutex_trylock(&pool.caller) == 0) {
        run_together(&j);
        (void) pthread_mutex_unlock(&pool.caller);
        return;
    }
    for (size_t i = 0; i < count; i++)
        task(arg, i, 0);
}
