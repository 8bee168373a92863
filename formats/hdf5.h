// hdf5.h - reading and writing HDF5 files; the only place that knows the library.
//
// Files are read by a process of their own: libhdf5 reads damaged files with faults of its own, so
// whatever a file does to it, the caller sees a line. That process tells what the file holds and
// where; arrays that lie in one piece are then read from the mapped file, others are decoded there
// into memory that both share. Writing happens in the caller's process.
//
// libhdf5 is not built for threads: call everything here from one thread at a time.
#ifndef NYB_FORMATS_HDF5_H_
#define NYB_FORMATS_HDF5_H_

#include <jansson.h>

#include "core/arena.h"

typedef struct nyb_hdf5 nyb_hdf5;

// A group or an array. Everything belongs to the file.
typedef struct nyb_hdf5_item {
    const char *path; // "layers/dense/vars/0", without a slash in front; "" is the root
    bool is_group;
    // Of an array: name (the path), dtype, shape and bytes; rank 0 for a single number. `at` stays
    // NULL: see nyb_hdf5_read().
    nyb_tensor tensor;
    const json_t *attributes; // an object of texts and numbers; never NULL
} nyb_hdf5_item;

// Opens a file and lists what is in it: groups before what they hold, and in each the members by
// name, as memcmp() orders them. Attributes that are neither one text nor one number are left out.
// An array of 2-byte values that says "bfloat16" in its attribute `dtype` is NYB_BF16.
//
// NYB_E_IO           the file cannot be read.
// NYB_E_FORMAT       it is no HDF5 file, or damaged, or an array is larger than it can be: its
//                    elements are counted against the file's size before anything is read (a
//                    compressed array may be up to 1,100 times what it takes in the file).
// NYB_E_UNSUPPORTED  it has soft or external links, arrays whose values lie in other files, virtual
//                    arrays, filters other than deflate, shuffle and fletcher32, or arrays that are
//                    not plain little-endian numbers; err names them.
NYB_NODISCARD nyb_status nyb_hdf5_open(nyb_hdf5 **out, const char *path, nyb_err *err);

// The same for a file that errors are to call `shown`, because nobody knows it by its path.
NYB_NODISCARD nyb_status nyb_hdf5_open_as(nyb_hdf5 **out, const char *path, const char *shown,
                                          nyb_err *err);

// NULL is fine.
void nyb_hdf5_close(nyb_hdf5 *file);

const nyb_hdf5_item *nyb_hdf5_items(const nyb_hdf5 *file, size_t *count);

// NULL when there is none of this path.
const nyb_hdf5_item *nyb_hdf5_find(const nyb_hdf5 *file, const char *path);

// The whole array: *out is the item's tensor with `at` set, which lives until the file is closed.
// Arrays in one piece are not read before they are touched; others are decoded at the first call.
//
// NYB_E_FORMAT  a piece of it is damaged (a checksum, a compressed piece).
NYB_NODISCARD nyb_status nyb_hdf5_read(nyb_hdf5 *file, const char *path, nyb_tensor *out,
                                       nyb_err *err);

// ---- Writing ------------------------------------------------------------------------------

typedef struct nyb_hdf5_writer nyb_hdf5_writer;

// How an array lies in the file. Zeroed: in one piece.
typedef struct nyb_hdf5_storage {
    size_t chunk[NYB_MAX_RANK]; // shape of the pieces; all 0: one piece, and nothing below applies
    unsigned deflate;           // compression level 1 to 9, after a shuffle of bytes; 0: none
    bool checksum;              // fletcher32 of every piece, checked when it is read
} nyb_hdf5_storage;

// Makes the file (an old one of this path is emptied). The same calls give the same bytes.
NYB_NODISCARD nyb_status nyb_hdf5_create(nyb_hdf5_writer **out, const char *path, nyb_err *err);

// Makes a group and those above it. One that is there is fine.
NYB_NODISCARD nyb_status nyb_hdf5_put_group(nyb_hdf5_writer *file, const char *path, nyb_err *err);

// Writes a whole array under its name, with the groups above it.
//
//   tensor   name, dtype (not a block type; NYB_BF16 as 2-byte opaque values with the attribute
//            `dtype`, as Keras has them), rank, shape, at
//   storage  NULL: in one piece
//
// NYB_E_EXISTS  the name is taken.
NYB_NODISCARD nyb_status nyb_hdf5_put(nyb_hdf5_writer *file, const nyb_tensor *tensor,
                                      const nyb_hdf5_storage *storage, nyb_err *err);

// Sets an attribute of a group or an array that is there: a text (as UTF-8 of variable length, as
// h5py writes it), an integer (64 bits), or a real number.
NYB_NODISCARD nyb_status nyb_hdf5_put_attribute(nyb_hdf5_writer *file, const char *path,
                                                const char *name, const json_t *value,
                                                nyb_err *err);

// Completes the file, syncs it to disk and closes it, also on an error.
NYB_NODISCARD nyb_status nyb_hdf5_finish(nyb_hdf5_writer *file, nyb_err *err);

// Closes a file that is not completed; what is there of it stays. NULL is fine.
void nyb_hdf5_discard(nyb_hdf5_writer *file);

#endif // NYB_FORMATS_HDF5_H_
