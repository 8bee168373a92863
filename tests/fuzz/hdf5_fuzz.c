#include "formats/hdf5.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_hdf5 *file;
    nyb_err err;
    size_t count;
    volatile unsigned char sum = 0;
    if (nyb_hdf5_open(&file, fuzz_file(bytes, length), &err) != NYB_OK)
        return 0;
    fuzz_accept();
    const nyb_hdf5_item *const items = nyb_hdf5_items(file, &count);
    for (size_t i = 0; i < count; i++) {
        nyb_tensor tensor;
        if (items[i].is_group || items[i].tensor.bytes > 1 << 20 ||
            nyb_hdf5_read(file, items[i].path, &tensor, &err) != NYB_OK)
            continue;
        const unsigned char *const at = tensor.at;
        for (size_t b = 0; b < tensor.bytes; b++)
            sum = (unsigned char) (sum + at[b]);
    }
    nyb_hdf5_close(file);
    return 0;
}
