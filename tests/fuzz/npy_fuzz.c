#include "nybble/npy.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_npy array = {0};
    nyb_err err;
    volatile unsigned char sum = 0;
    if (nyb_npy_open(&array, fuzz_file(bytes, length), &err) != NYB_OK)
        return 0;
    fuzz_accept();
    const unsigned char *const at = array.tensor.at;
    for (size_t b = 0; b < array.tensor.bytes; b++)
        sum = (unsigned char) (sum + at[b]);
    nyb_npy_close(&array);
    return 0;
}
