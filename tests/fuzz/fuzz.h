// fuzz.h - what every fuzz target shares. A target feeds one input to one reader of untrusted
// files; whatever the input holds, the reader must return, and under sanitizers in peace.
//
// With -Dfuzzing=true (clang) each target is a libFuzzer program. Without, mutate.c drives it: the
// corpus as it is, then a fixed number of mutations of it, as a test.
#ifndef NYB_TESTS_FUZZ_H_
#define NYB_TESTS_FUZZ_H_

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

// A target says so for each input that its reader took. mutate.c wants that of the whole corpus:
// inputs that are refused at the first byte test nothing.
void fuzz_accept(void);
size_t fuzz_accepted(void);

// Puts the bytes into a file in memory and returns its path, for readers that take a path. The
// next call replaces it.
const char *fuzz_file(const uint8_t *bytes, size_t length);

// A folder of the process's own that holds this file, and that of another name of another call; the
// next call with the same name replaces it. A process uses at most two names.
const char *fuzz_folder(const char *name, const uint8_t *bytes, size_t length);

#endif // NYB_TESTS_FUZZ_H_
