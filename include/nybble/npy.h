// npy.h - NumPy's array files, versions 1 to 3, of plain little-endian numbers in C order.
#ifndef NYB_NPY_H_
#define NYB_NPY_H_

#include "nybble/tensor.h"

// A mapped array. tensor.name is the path; the bytes live until nyb_npy_close().
typedef struct nyb_npy {
    nyb_tensor tensor;
    void *owner;
} nyb_npy;

// Maps an array file and checks its header and length.
//
// Taken: f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1, at most NYB_MAX_RANK axes.
//
// NYB_E_IO           the system refused.
// NYB_E_FORMAT       not an array file, or its length and shape disagree.
// NYB_E_UNSUPPORTED  another element type (objects and structures are never read), big-endian,
//                    Fortran order, or too many axes; err says how to save it anew.
// On every error *out is zeroed.
NYB_API NYB_NODISCARD nyb_status nyb_npy_open(nyb_npy *out, const char *path, nyb_err *err);

// A zeroed one is fine.
NYB_API void nyb_npy_close(nyb_npy *array);

// Writes an array file beside `path`, syncs it and renames it.
//
// NYB_E_UNSUPPORTED  the dtype has no NumPy name (BF16, F8).
// NYB_E_IO           the system refused; an old file at `path` is untouched.
NYB_API NYB_NODISCARD nyb_status nyb_npy_save(const char *path, const nyb_tensor *tensor,
                                              nyb_err *err);

// An array file that is written piece by piece.
typedef struct nyb_npy_writer nyb_npy_writer;

// Starts "<path>.part" for an array of this dtype and shape (tensor->at is not read).
//
// NYB_E_UNSUPPORTED, NYB_E_IO  as nyb_npy_save(); *out is NULL.
NYB_API NYB_NODISCARD nyb_status nyb_npy_create(nyb_npy_writer **out, const char *path,
                                                const nyb_tensor *shape, nyb_err *err);

// Appends the next bytes in C order.
//
// NYB_E_SHAPE  more bytes than the shape holds; nothing is written.
NYB_API NYB_NODISCARD nyb_status nyb_npy_append(nyb_npy_writer *writer, const void *at,
                                                size_t bytes, nyb_err *err);

// Syncs and renames to `path`. The writer is still to be closed.
//
// NYB_E_SHAPE  bytes are missing.
NYB_API NYB_NODISCARD nyb_status nyb_npy_finish(nyb_npy_writer *writer, nyb_err *err);

// Frees the writer; an unfinished file is removed. NULL is fine.
NYB_API void nyb_npy_discard(nyb_npy_writer *writer);

#endif // NYB_NPY_H_
