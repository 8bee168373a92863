// factor_cache.h - factors of Hessians kept in memory for the next run over the same Hessians.
//
// A set is all factors of one order, group size and damping. When there is no room left, the set that
// was asked for least lately makes room for the others; the one at hand never makes room for itself,
// so that runs of one set find at least as much of it as fits.
#ifndef NYB_CALIB_FACTOR_CACHE_H_
#define NYB_CALIB_FACTOR_CACHE_H_

#include "nybble/gptq.h"

// What makes two factors the same.
typedef struct nyb_factor_key {
    size_t place; // which Hessian
    nyb_gptq_order order;
    size_t group_size; // 0 where the order does not depend on it
    double damping;    // that was asked for
} nyb_factor_key;

typedef struct nyb_factor_set nyb_factor_set;

// Zeroed it is empty and keeps nothing.
typedef struct nyb_factor_cache {
    size_t limit;         // bytes of all that is kept
    size_t bytes;         // of what is kept
    size_t found, missed; // calls of nyb_factor_cache_get()
    nyb_factor_set *sets; // the one asked for last is the first
} nyb_factor_cache;

// The key of what nyb_gptq_prepare() makes of a Hessian by these parameters.
nyb_factor_key nyb_factor_key_of(size_t place, const nyb_gptq_params *params);

// Copies what is kept for this key to *out, for this Hessian, which is the one that it was made of.
// *found says whether there is any; if not, out holds nothing.
//
// NYB_E_NOMEM  no room; out holds nothing.
NYB_NODISCARD nyb_status nyb_factor_cache_get(nyb_factor_cache *cache, nyb_factor_key key,
                                              const nyb_hessian *hessian, nyb_gptq_factor *out,
                                              bool *found, nyb_err *err);

// Keeps a copy, if there is room.
void nyb_factor_cache_put(nyb_factor_cache *cache, nyb_factor_key key,
                          const nyb_gptq_factor *factor);

// Empties it; the limit stays.
void nyb_factor_cache_clear(nyb_factor_cache *cache);

#endif // NYB_CALIB_FACTOR_CACHE_H_
