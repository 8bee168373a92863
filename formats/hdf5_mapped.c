#include "formats/hdf5_mapped.h"

#include <string.h>
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include "core/memory.h"

// What libhdf5 knows as an open file; its own part comes first.
typedef struct mapped {
    H5FD_t base;
    nyb_hdf5_image image;
    haddr_t end; // of what libhdf5 takes for allocated
} mapped;

static H5FD_t *open_mapped(const char *name, unsigned flags, hid_t access, haddr_t most)
{
    (void) name;
    (void) most;
    const nyb_hdf5_image *const image = H5Pget_driver_info(access);
    mapped *const file = image && !(flags & H5F_ACC_RDWR) ? nyb_alloc(1, sizeof(*file)) : NULL;
    if (file)
        file->image = *image;
    return (H5FD_t *) file;
}

static herr_t close_mapped(H5FD_t *file)
{
    nyb_free(file);
    return 0;
}

static herr_t query_mapped(const H5FD_t *file, unsigned long *flags)
{
    (void) file;
    *flags = 0;
    return 0;
}

static haddr_t get_end(const H5FD_t *file, H5FD_mem_t type)
{
    (void) type;
    return ((const mapped *) file)->end;
}

static herr_t set_end(H5FD_t *file, H5FD_mem_t type, haddr_t end)
{
    (void) type;
    ((mapped *) file)->end = end;
    return 0;
}

static haddr_t get_size(const H5FD_t *file, H5FD_mem_t type)
{
    (void) type;
    return ((const mapped *) file)->image.bytes;
}

static herr_t read_mapped(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes,
                          void *to)
{
    const nyb_hdf5_image *const image = &((const mapped *) file)->image;
    (void) type;
    (void) transfer;
    if (at > image->bytes || bytes > image->bytes - (size_t) at)
        return -1;
    memcpy(to, image->at + at, bytes);
    return 0;
}

static herr_t write_mapped(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes,
                           const void *from)
{
    (void) file;
    (void) type;
    (void) transfer;
    (void) at;
    (void) bytes;
    (void) from;
    return -1;
}

static const H5FD_class_t driver = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = 600, // of the numbers that libhdf5 leaves to others
#endif
    .name = "nybble-mapped",
    .maxaddr = HADDR_MAX,
    .fc_degree = H5F_CLOSE_WEAK,
    .fapl_size = sizeof(nyb_hdf5_image),
    .open = open_mapped,
    .close = close_mapped,
    .query = query_mapped,
    .get_eoa = get_end,
    .set_eoa = set_end,
    .get_eof = get_size,
    .read = read_mapped,
    .write = write_mapped,
    .fl_map = H5FD_FLMAP_SINGLE,
};

hid_t nyb_hdf5_open_image(const char *name, const nyb_hdf5_image *image)
{
    const hid_t id = H5FDregister(&driver);
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (id < 0 || access < 0 || H5Pset_driver(access, id, image) < 0)
        return -1;
    // What is left open here ends with the process; closing it would clear libhdf5's errors.
    return H5Fopen(name, H5F_ACC_RDONLY, access);
}
