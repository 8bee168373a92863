#include "formats/gguf.h"
#include "tests/fuzz/fuzz.h"

// Reads whatever an accepted file says it has.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_gguf file;
    nyb_err err;
    volatile double sum = 0.0;
    volatile unsigned char byte = 0;
    if (nyb_gguf_open(&file, fuzz_file(bytes, length), &err) != NYB_OK)
        return 0;
    fuzz_accept();
    for (size_t i = 0; i < file.value_count; i++) {
        const nyb_gguf_value *const v = &file.values[i];
        for (size_t k = 0; k < v->count; k++) {
            sum += nyb_gguf_number(v, k) + (double) nyb_gguf_integer(v, k);
            for (size_t b = 0; v->texts && b < v->texts[k].length; b++)
                byte = (unsigned char) (byte + (unsigned char) v->texts[k].at[b]);
        }
    }
    for (size_t i = 0; i < file.count; i++)
        for (size_t b = 0; b < file.tensors[i].bytes; b++)
            byte = (unsigned char) (byte + ((const unsigned char *) file.tensors[i].at)[b]);
    nyb_gguf_close(&file);
    (void) sum;
    return 0;
}
