#include "formats/keras_layers.h"
#include "tests/fuzz/fuzz.h"

// The archive itself; what a configuration can do is keras_config_fuzz.c's.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_keras_file *file;
    nyb_keras_layers layers;
    nyb_err err;
    if (nyb_keras_open(&file, fuzz_file(bytes, length), NULL, &err) != NYB_OK)
        return 0;
    if (nyb_keras_layers_read(&layers, file, &err) == NYB_OK) {
        fuzz_accept();
        nyb_keras_layers_clear(&layers);
    }
    nyb_keras_close(file);
    return 0;
}
