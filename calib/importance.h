// importance.h - llama.cpp's importance matrix, read: how much the square of each input's error
// counts, which is the diagonal of a Hessian.
#ifndef NYB_CALIB_IMPORTANCE_H_
#define NYB_CALIB_IMPORTANCE_H_

#include "formats/gguf.h"

// Opens an imatrix.gguf.
//
// NYB_E_UNSUPPORTED  the older form without GGUF's header.
// NYB_E_FORMAT       a GGUF file that is no importance matrix.
// Others as nyb_gguf_open(); on every error *out is zeroed.
NYB_NODISCARD nyb_status nyb_importance_open(nyb_gguf *out, const char *path, nyb_err *err);

// The mean square of each of a tensor's inputs, [slices, cols], in the arena: `slices` experts, or
// one matrix. NULL: the file has none of this tensor, or it never had an input.
//
//   name  of the tensor in a GGUF file
//
// NYB_E_FORMAT  the file's tensors for it have other shapes or types, or a number that is negative
//               or not finite.
NYB_NODISCARD nyb_status nyb_importance_of(const float **out, const nyb_gguf *file,
                                           nyb_arena *arena, const char *name, size_t slices,
                                           size_t cols, nyb_err *err);

#endif // NYB_CALIB_IMPORTANCE_H_
