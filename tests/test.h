// test.h - what every unit test includes first: cmocka with the headers that it needs, and a
// small generator for random cases.
#ifndef NYB_TESTS_TEST_H_
#define NYB_TESTS_TEST_H_

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/random.h"

// Uniform in [-1, 1).
static inline float test_uniform(uint64_t *seed)
{
    return (float) (2.0 * nyb_random_unit(seed) - 1.0);
}

// Fails, printing both values and the bound, unless |got - want| <= bound.
#define assert_near(got, want, bound)                                                              \
    do {                                                                                           \
        const double got_ = (got), want_ = (want), bound_ = (bound);                               \
        const double off_ = got_ > want_ ? got_ - want_ : want_ - got_;                            \
        if (!(off_ <= bound_)) {                                                                   \
            print_error("%s is %.9g, want %.9g within %.3g\n", #got, got_, want_, bound_);         \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

#endif // NYB_TESTS_TEST_H_
