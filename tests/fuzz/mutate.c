// mutate.c - runs a fuzz target without a fuzzer: every file of a folder as it is, then mutations
// of them from a fixed seed.
//
// usage: TARGET FOLDER [ROUNDS]
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "tests/fuzz/fuzz.h"

enum { FILES_MAX = 64, BYTES_MAX = 1 << 16 };

typedef struct seed_file {
    uint8_t *bytes;
    size_t length;
} seed_file;

// Words that readers of headers and JSON care about.
static const char *const words[] = {
    "\"", "{",    "}",     "[",        "]",        ",",
    ":",  "null", "-1",    "1e999",    "\\u0000",  "18446744073709551615",
    "0",  "true", "\xff",  "\n",       "F32",      "9223372036854775808",
    "\\", "()",   "4e200", "\xc3\x28", "../../..", "99999999999999999999999"};

static size_t below(uint64_t *random, size_t n)
{
    return n ? (size_t) (nyb_random_unit(random) * (double) n) : 0;
}

// Opens or closes a gap at `at`; bytes behind it move.
static size_t resize(uint8_t *bytes, size_t length, size_t at, size_t remove, size_t insert)
{
    memmove(bytes + at + insert, bytes + at + remove, length - at - remove);
    return length - remove + insert;
}

static size_t mutate_once(uint8_t *bytes, size_t length, uint64_t *random)
{
    const size_t at = below(random, length + 1);
    switch (below(random, 7)) {
    case 0: // a bit
        if (at < length)
            bytes[at] ^= (uint8_t) (1u << below(random, 8));
        return length;
    case 1: // a byte
        if (at < length)
            bytes[at] = (uint8_t) below(random, 256);
        return length;
    case 2: // an extreme 64-bit number
        if (at + 8 <= length)
            memset(bytes + at, below(random, 2) ? 0xff : 0, 1 + below(random, 8));
        return length;
    case 3: // cut out
        return resize(bytes, length, at, below(random, length - at), 0);
    case 4: // cut off
        return at;
    case 5: { // a copy of a piece
        const size_t from = below(random, length), count = below(random, length - from);
        if (length + count > BYTES_MAX)
            return length;
        uint8_t piece[256];
        const size_t taken = count < sizeof(piece) ? count : sizeof(piece);
        memcpy(piece, bytes + from, taken);
        const size_t now = resize(bytes, length, at, 0, taken);
        memcpy(bytes + at, piece, taken);
        return now;
    }
    default: { // a word
        const char *const word = words[below(random, sizeof(words) / sizeof(words[0]))];
        const size_t now = strlen(word), over = below(random, 2) ? now : 0;
        const size_t gone = over < length - at ? over : length - at;
        if (length + now > BYTES_MAX)
            return length;
        length = resize(bytes, length, at, gone, now);
        memcpy(bytes + at, word, now);
        return length;
    }
    }
}

static size_t load(seed_file *files, const char *folder)
{
    DIR *const entries = opendir(folder);
    size_t count = 0;
    for (struct dirent *e = entries ? readdir(entries) : NULL; e && count < FILES_MAX;
         e = readdir(entries)) {
        char path[1024];
        (void) snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        FILE *const in = e->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!in)
            continue;
        files[count].bytes = malloc(BYTES_MAX);
        files[count].length = files[count].bytes ? fread(files[count].bytes, 1, BYTES_MAX, in) : 0;
        count++;
        (void) fclose(in);
    }
    if (entries)
        (void) closedir(entries);
    return count;
}

int main(int argc, char **argv)
{
    seed_file files[FILES_MAX];
    const size_t count = argc > 1 ? load(files, argv[1]) : 0;
    const long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 20000;
    uint8_t *const work = malloc(BYTES_MAX + 64);
    uint64_t random = 1;
    if (count == 0 || !work) {
        (void) fprintf(stderr, "no corpus in '%s'\n", argc > 1 ? argv[1] : "");
        return 1;
    }
    for (size_t i = 0; i < count; i++)
        (void) LLVMFuzzerTestOneInput(files[i].bytes, files[i].length);
    if (fuzz_accepted() != count) {
        (void) fprintf(stderr, "%zu of %zu files of the corpus are refused\n",
                       count - fuzz_accepted(), count);
        return 1;
    }
    for (long r = 0; r < rounds; r++) {
        const seed_file *const from = &files[below(&random, count)];
        size_t length = from->length;
        memcpy(work, from->bytes, length);
        for (size_t times = 1 + below(&random, 6); times > 0; times--)
            length = mutate_once(work, length, &random);
        // An exact block, so that a read behind it is seen.
        uint8_t *const exact = malloc(length ? length : 1);
        if (exact) {
            memcpy(exact, work, length);
            (void) LLVMFuzzerTestOneInput(exact, length);
        }
        free(exact);
    }
    for (size_t i = 0; i < count; i++)
        free(files[i].bytes);
    free(work);
    (void) printf("%zu files and %ld mutations, %zu taken\n", count, rounds, fuzz_accepted());
    return 0;
}
