#include "formats/checkpoint.h"
#include "tests/fuzz/fuzz.h"

// The folder holds nothing but the index, so a good one fails at its first shard.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_checkpoint *file = NULL;
    nyb_err err;
    const char *const folder = fuzz_folder("model.safetensors.index.json", bytes, length);
    const nyb_status status = nyb_checkpoint_open(&file, folder, &err);
    if (status == NYB_OK)
        nyb_checkpoint_close(file);
    if (status == NYB_E_IO)
        fuzz_accept();
    return 0;
}
