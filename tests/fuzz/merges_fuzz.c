#include "tests/fuzz/tokenizing.h"

// A vocab.json, a NUL, a merges.txt.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const uint8_t *const end = memchr(bytes, 0, length);
    const size_t first = end ? (size_t) (end - bytes) : length;
    const size_t second = end ? first + 1 : first;
    (void) fuzz_folder("vocab.json", bytes, first);
    fuzz_tokenizer_folder(fuzz_folder("merges.txt", bytes + second, length - second));
    return 0;
}
