#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "core/threads.h"

enum { MOST = 500, CALLERS = 3 };

typedef struct tally {
    atomic_uint done[MOST];
    atomic_uint wrong;  // workers out of range, or two at a time in one's place
    atomic_bool in[16]; // whether a worker is at a task
    unsigned threads;
} tally;

static void count_one(void *arg, size_t index, unsigned worker)
{
    tally *const t = arg;
    if (worker >= t->threads || atomic_exchange(&t->in[worker], true))
        atomic_fetch_add(&t->wrong, 1);
    atomic_fetch_add(&t->done[index], 1);
    for (volatile size_t spin = 0; spin < index % 50 * 10; spin = spin + 1)
        ;
    atomic_store(&t->in[worker % 16], false);
}

static void check(tally *t, unsigned threads, size_t count)
{
    const nyb_context ctx = {.threads = threads};
    t->threads = threads;
    nyb_parallel(&ctx, count, count_one, t);
    for (size_t i = 0; i < MOST; i++) {
        if (atomic_exchange(&t->done[i], 0) != (i < count))
            atomic_fetch_add(&t->wrong, 1);
    }
}

// Many short calls in a row, so that helpers come late, find calls closed, and fall asleep.
static void every_task_is_done_once(void **state)
{
    (void) state;
    static tally t;
    uint64_t seed = 4;
    for (size_t call = 0; call < 20000; call++)
        check(&t, 1 + (unsigned) nyb_random_below(&seed, 8),
              (size_t) nyb_random_below(&seed, call % 100 == 0 ? MOST : 12));
    assert_int_equal(t.wrong, 0);
}

static void *call_often(void *arg)
{
    uint64_t seed = (uint64_t) (size_t) arg;
    tally *const t = arg;
    for (size_t call = 0; call < 2000; call++)
        check(t, 1 + (unsigned) nyb_random_below(&seed, 4), (size_t) nyb_random_below(&seed, 30));
    return NULL;
}

static void threads_may_call_at_the_same_time(void **state)
{
    (void) state;
    static tally t[CALLERS];
    pthread_t callers[CALLERS];
    for (size_t i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call_often, &t[i]), 0);
    for (size_t i = 0; i < CALLERS; i++) {
        assert_int_equal(pthread_join(callers[i], NULL), 0);
        assert_int_equal(t[i].wrong, 0);
    }
}

static void call_again(void *arg, size_t index, unsigned worker)
{
    tally *const t = arg;
    (void) worker;
    check(&t[index], 2, 20);
}

static void tasks_may_call(void **state)
{
    (void) state;
    static tally t[6];
    const nyb_context ctx = {.threads = 3};
    for (size_t call = 0; call < 200; call++)
        nyb_parallel(&ctx, 6, call_again, t);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(t[i].wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_is_done_once),
        cmocka_unit_test(threads_may_call_at_the_same_time),
        cmocka_unit_test(tasks_may_call),
    };
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
