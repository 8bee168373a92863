#include <string.h>

#include "calib/adapter.h"
#include "tests/fuzz/fuzz.h"

// Two bytes with the length of adapter_config.json, the configuration, the tensors.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_adapter adapter;
    nyb_err err;
    if (length < 2)
        return 0;
    const size_t left = length - 2, wanted = (size_t) bytes[0] | (size_t) bytes[1] << 8;
    const size_t config = wanted < left ? wanted : left;
    (void) fuzz_folder("adapter_config.json", bytes + 2, config);
    if (nyb_adapter_open(
            &adapter, fuzz_folder("adapter_model.safetensors", bytes + 2 + config, left - config),
            &err) != NYB_OK)
        return 0;
    fuzz_accept();
    nyb_adapter_close(&adapter);
    return 0;
}
