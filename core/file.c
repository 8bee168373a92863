#define _GNU_SOURCE // O_TMPFILE
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static nyb_status system_fault(const char *path, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static nyb_status map_descriptor(nyb_map *out, int fd, const char *path, nyb_err *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return system_fault(path, "read its size", err);
    if (!S_ISREG(info.st_mode))
        return nyb_fail(err, NYB_E_IO, "%s: not a plain file", path);
    if (info.st_size == 0)
        return NYB_OK; // mmap refuses a length of 0

    void *const at = mmap(NULL, (size_t) info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        return system_fault(path, "map it", err);
    *out = (nyb_map){.at = at, .bytes = (size_t) info.st_size};
    return NYB_OK;
}

nyb_status nyb_map_open(nyb_map *out, const char *path, nyb_err *err)
{
    *out = (nyb_map){0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return system_fault(path, "open it", err);
    const nyb_status status = map_descriptor(out, fd, path, err);
    (void) close(fd);
    return status;
}

void nyb_map_close(nyb_map *map)
{
    if (map->at)
        (void) munmap((void *) (uintptr_t) map->at, map->bytes);
    *map = (nyb_map){0};
}

static void advise(const void *at, size_t bytes, int advice)
{
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = (uintptr_t) at / page * page;
    (void) madvise((void *) first, (uintptr_t) at + bytes - first, advice);
}

void nyb_map_prefetch(const void *at, size_t bytes)
{
    advise(at, bytes, MADV_WILLNEED);
}

void nyb_map_release(const void *at, size_t bytes)
{
    advise(at, bytes, MADV_DONTNEED);
}

nyb_status nyb_file_read(nyb_arena *arena, const char *path, size_t limit, char **text,
                         size_t *length, nyb_err *err)
{
    nyb_map map;
    const nyb_status status = nyb_map_open(&map, path, err);
    if (status != NYB_OK)
        return status;

    const size_t bytes = map.bytes;
    *text = bytes <= limit ? nyb_arena_text(arena, (const char *) map.at, bytes) : NULL;
    *length = bytes;
    nyb_map_close(&map);
    if (bytes > limit)
        return nyb_fail(err, NYB_E_FORMAT, "%s: %zu bytes are more than the limit of %zu", path,
                        bytes, limit);
    return *text ? NYB_OK : nyb_no_memory(err, path, bytes, 1);
}

static nyb_status write_all(int fd, const unsigned char *bytes, size_t length, const char *path,
                            nyb_err *err)
{
    while (length > 0) {
        const ssize_t wrote = write(fd, bytes, length);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return system_fault(path, "write it", err);
        bytes += wrote;
        length -= (size_t) wrote;
    }
    return fsync(fd) == 0 ? NYB_OK : system_fault(path, "sync it to disk", err);
}

static nyb_status write_beside(const char *part, const void *bytes, size_t length, nyb_err *err)
{
    const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return system_fault(part, "create it", err);
    nyb_status status = write_all(fd, bytes, length, part, err);
    if (close(fd) != 0 && status == NYB_OK)
        status = system_fault(part, "close it", err);
    return status;
}

nyb_status nyb_file_write(const char *path, const void *bytes, size_t length, nyb_err *err)
{
    nyb_arena arena = {0};
    const char *const part = nyb_arena_format(&arena, "%s.part", path);
    if (!part)
        return nyb_no_memory(err, path, strlen(path), 1);

    nyb_status status = write_beside(part, bytes, length, err);
    if (status == NYB_OK)
        status = nyb_rename(part, path, err);
    if (status != NYB_OK)
        (void) unlink(part);
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_file_copy(const char *from, const char *to, nyb_err *err)
{
    nyb_map map;
    nyb_status status = nyb_map_open(&map, from, err);
    if (status != NYB_OK)
        return status;
    status = nyb_file_write(to, map.at, map.bytes, err);
    nyb_map_close(&map);
    return status;
}

const char *nyb_file_temporary(void)
{
    const char *const folder = getenv("TMPDIR");
    return folder && *folder ? folder : "/tmp";
}

int nyb_file_nameless(const char *folder)
{
    const int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return file;
    nyb_arena arena = {0};
    char *const path = nyb_path_join(&arena, folder, "nybble.XXXXXX");
    const int named = path ? mkostemp(path, O_CLOEXEC) : -1;
    if (named >= 0)
        (void) unlink(path);
    nyb_arena_clear(&arena);
    return named;
}

bool nyb_path_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

nyb_status nyb_path_readable(const char *path, nyb_err *err)
{
    return access(path, R_OK) == 0 ? NYB_OK : system_fault(path, "open it", err);
}

bool nyb_path_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

nyb_status nyb_folder_make(const char *path, nyb_err *err)
{
    if (mkdir(path, 0777) == 0)
        return NYB_OK;
    if (errno == EEXIST)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists", path);
    return system_fault(path, "make the folder", err);
}

static nyb_status remove_files(DIR *folder, const char *path, nyb_err *err)
{
    const struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            return nyb_fail(err, NYB_E_IO, "%s/%s: cannot remove it: %s", path, entry->d_name,
                            strerror(errno));
    }
    return NYB_OK;
}

nyb_status nyb_folder_remove(const char *path, nyb_err *err)
{
    DIR *const folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? NYB_OK : system_fault(path, "open the folder", err);
    const nyb_status status = remove_files(folder, path, err);
    (void) closedir(folder);
    if (status != NYB_OK)
        return status;
    return rmdir(path) == 0 ? NYB_OK : system_fault(path, "remove the folder", err);
}

nyb_status nyb_file_sync(const char *path, nyb_err *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return system_fault(path, "open it", err);
    const nyb_status status = fsync(fd) == 0 ? NYB_OK : system_fault(path, "sync it to disk", err);
    (void) close(fd);
    return status;
}

nyb_status nyb_folder_sync(const char *path, nyb_err *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return system_fault(path, "open the folder", err);
    const int failed = fsync(fd);
    (void) close(fd);
    // Some file systems cannot sync a folder and say so with EINVAL: nothing to be done then.
    if (failed && errno != EINVAL)
        return system_fault(path, "sync the folder to disk", err);
    return NYB_OK;
}

nyb_status nyb_rename(const char *from, const char *to, nyb_err *err)
{
    if (rename(from, to) != 0)
        return nyb_fail(err, NYB_E_IO, "%s: cannot rename it to '%s': %s", from, to,
                        strerror(errno));

    nyb_arena arena = {0};
    const char *const slash = strrchr(to, '/');
    const char *const parent =
        slash ? nyb_arena_text(&arena, to, slash == to ? 1 : (size_t) (slash - to)) : ".";
    const nyb_status status =
        parent ? nyb_folder_sync(parent, err) : nyb_no_memory(err, to, strlen(to), 1);
    nyb_arena_clear(&arena);
    return status;
}

char *nyb_path_join(nyb_arena *arena, const char *folder, const char *name)
{
    const size_t length = strlen(folder);
    const bool slash = length > 0 && folder[length - 1] == '/';
    return nyb_arena_format(arena, "%s%s%s", folder, slash ? "" : "/", name);
}
