#include "tests/fuzz/tokenizing.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    fuzz_tokenizer("vocab.txt", bytes, length);
    return 0;
}
