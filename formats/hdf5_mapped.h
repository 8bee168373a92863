// hdf5_mapped.h - lets libhdf5 read a file that is mapped into memory, so that it reads the very
// bytes that were checked, also where the file has no name.
#ifndef NYB_FORMATS_HDF5_MAPPED_H_
#define NYB_FORMATS_HDF5_MAPPED_H_

#include <hdf5.h>

typedef struct nyb_hdf5_image {
    const unsigned char *at;
    size_t bytes;
} nyb_hdf5_image;

// As H5Fopen() to read; the image has to outlive the file. `name` is for libhdf5's own use.
hid_t nyb_hdf5_open_image(const char *name, const nyb_hdf5_image *image);

#endif // NYB_FORMATS_HDF5_MAPPED_H_
