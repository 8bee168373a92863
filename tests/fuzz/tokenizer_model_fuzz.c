#include "tests/fuzz/tokenizing.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    fuzz_tokenizer("tokenizer.model", bytes, length);
    return 0;
}
