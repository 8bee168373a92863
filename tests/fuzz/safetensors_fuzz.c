#include "formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_safetensors file = {0};
    nyb_err err;
    volatile unsigned char sum = 0;
    if (nyb_safetensors_parse(&file, bytes, length, "fuzz", &err) != NYB_OK)
        return 0;
    fuzz_accept();
    // What was taken must be readable to its last byte.
    for (size_t i = 0; i < file.count; i++) {
        const unsigned char *const at = file.tensors[i].at;
        for (size_t b = 0; b < file.tensors[i].bytes; b++)
            sum = (unsigned char) (sum + at[b]);
    }
    nyb_safetensors_close(&file);
    return 0;
}
