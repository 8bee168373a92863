#define _GNU_SOURCE // memfd_create
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t accepted;

void fuzz_accept(void)
{
    accepted++;
}

size_t fuzz_accepted(void)
{
    return accepted;
}

// A harness that cannot set up its input has nothing to say about the reader.
static void need(int fine, const char *what)
{
    if (!fine) {
        perror(what);
        exit(1);
    }
}

static void put(int file, const uint8_t *bytes, size_t length)
{
    need(ftruncate(file, 0) == 0, "ftruncate");
    need(length == 0 || pwrite(file, bytes, length, 0) == (ssize_t) length, "pwrite");
}

const char *fuzz_file(const uint8_t *bytes, size_t length)
{
    static char path[64];
    static int file = -1;
    if (file < 0)
        file = memfd_create("fuzz", 0);
    need(file >= 0, "memfd_create");
    put(file, bytes, length);
    (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    return path;
}

static char folder[64], inside[2][128];

static void remove_folder(void)
{
    for (size_t i = 0; i < 2; i++)
        (void) unlink(inside[i]);
    (void) rmdir(folder);
}

const char *fuzz_folder(const char *name, const uint8_t *bytes, size_t length)
{
    if (!*folder) {
        (void) snprintf(folder, sizeof(folder), "/tmp/nybble-fuzz-XXXXXX");
        need(mkdtemp(folder) != NULL, "mkdtemp");
        (void) atexit(remove_folder);
    }
    char path[sizeof(inside[0])];
    (void) snprintf(path, sizeof(path), "%s/%s", folder, name);
    char *const slot = *inside[0] && strcmp(inside[0], path) != 0 ? inside[1] : inside[0];
    (void) memcpy(slot, path, sizeof(path));
    const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    need(file >= 0, path);
    put(file, bytes, length);
    need(close(file) == 0, "close");
    return folder;
}
