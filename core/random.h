// random.h - a small seeded generator (SplitMix64, Steele, Lea, Flood 2014). The seed is the
// caller's, so that every run repeats itself.
#ifndef NYB_CORE_RANDOM_H_
#define NYB_CORE_RANDOM_H_

#include <stdint.h>

static inline uint64_t nyb_random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// In [0, 1), with 53 random bits.
static inline double nyb_random_unit(uint64_t *state)
{
    return (double) (nyb_random_u64(state) >> 11) * 0x1p-53;
}

// In [0, bound), without bias; bound >= 1.
static inline uint64_t nyb_random_below(uint64_t *state, uint64_t bound)
{
    const uint64_t reject = -bound % bound; // 2^64 mod bound
    uint64_t value = nyb_random_u64(state);
    while (value < reject)
        value = nyb_random_u64(state);
    return value % bound;
}

#endif // NYB_CORE_RANDOM_H_
