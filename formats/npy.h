// npy.h - array files, the part that only the library sees.
#ifndef NYB_FORMATS_NPY_H_
#define NYB_FORMATS_NPY_H_

#include "core/arena.h"
#include "nybble/npy.h"

// Parses an array file in memory; the tensor's bytes are the caller's. `name` becomes the
// tensor's name, is used in errors, and has to outlive it. Errors as nyb_npy_open().
NYB_NODISCARD nyb_status nyb_npy_parse(nyb_tensor *out, const void *bytes, size_t length,
                                       const char *name, nyb_err *err);

// n elements of an integer array (i1..i8, u1..u8), or an exact integer in each element, as i64.
//
// NYB_E_UNSUPPORTED  the array does not hold integers.
// NYB_E_FORMAT       a u8 value does not fit i64.
NYB_NODISCARD nyb_status nyb_npy_integers(int64_t *dst, const nyb_tensor *array, size_t first,
                                          size_t n, nyb_err *err);

// n elements of a float array (f2, f4, f8) as f32, rounded to nearest even.
//
// NYB_E_UNSUPPORTED  the array does not hold floats.
NYB_NODISCARD nyb_status nyb_npy_floats(float *dst, const nyb_tensor *array, size_t first, size_t n,
                                        nyb_err *err);

#endif // NYB_FORMATS_NPY_H_
