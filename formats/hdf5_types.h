// hdf5_types.h - what the parts of the HDF5 wrapper share: element types, and libhdf5's errors.
// Seen by formats/hdf5*.c alone.
#ifndef NYB_FORMATS_HDF5_TYPES_H_
#define NYB_FORMATS_HDF5_TYPES_H_

#include <hdf5.h>

#include "core/status.h"
#include "nybble/tensor.h"

// The element type in files, to be closed by H5Tclose(); negative when there is none.
hid_t nyb_hdf5_type_of(nyb_dtype dtype);

// Closes an array's type, space and list of properties; a negative one is none.
void nyb_hdf5_close_parts(const hid_t parts[3]);

// Which element type a stored type is. False: none that is read.
bool nyb_hdf5_dtype(hid_t type, nyb_dtype *out);

// A word for a type that is not read: "compound values", ...
const char *nyb_hdf5_type_word(hid_t type);

// Tells libhdf5 to print nothing and to load no plugins. Idempotent.
void nyb_hdf5_quiet(void);

// Fails with the line and what libhdf5 says at the root of its last error.
__attribute__((format(printf, 3, 4))) nyb_status nyb_hdf5_fail(nyb_err *err, nyb_status status,
                                                               const char *format, ...);

#endif // NYB_FORMATS_HDF5_TYPES_H_
