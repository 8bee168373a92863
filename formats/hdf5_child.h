// hdf5_child.h - what the process that reads an HDF5 file does. See formats/hdf5.h.
#ifndef NYB_FORMATS_HDF5_CHILD_H_
#define NYB_FORMATS_HDF5_CHILD_H_

#include "core/file.h"
#include "nybble/tensor.h"

// Bytes that deflate can make of one.
enum { NYB_HDF5_EXPANSION = 1100 };

// Lists a file: a JSON array with an object for each group and array into `text`. An array that
// lies in one piece has its "offset" in the file.
typedef struct nyb_hdf5_listing {
    const char *path;
    const nyb_map *map; // the file
    char *text;         // [room], in shared memory
    size_t room;
    size_t *used; // likewise
} nyb_hdf5_listing;

nyb_status nyb_hdf5_list(void *listing, nyb_err *err);

// Decodes one array into shared memory.
typedef struct nyb_hdf5_decoding {
    const char *path;
    const nyb_map *map;
    const nyb_tensor *tensor; // name, dtype and bytes
    void *at;
} nyb_hdf5_decoding;

nyb_status nyb_hdf5_decode(void *decoding, nyb_err *err);

#endif // NYB_FORMATS_HDF5_CHILD_H_
