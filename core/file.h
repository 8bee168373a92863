// file.h - reading whole files by mapping them, and writing files that are whole or absent.
#ifndef NYB_CORE_FILE_H_
#define NYB_CORE_FILE_H_

#include "core/arena.h"

// A read-only mapping. The file must not be truncated while it is open.
typedef struct nyb_map {
    const unsigned char *at; // NULL for an empty file
    size_t bytes;
} nyb_map;

// NYB_E_IO: err names the file and what the system said.
NYB_NODISCARD nyb_status nyb_map_open(nyb_map *out, const char *path, nyb_err *err);
void nyb_map_close(nyb_map *map);

// Tells the system that these bytes of a mapping are needed soon (prefetch) or no longer (drop
// them from memory; they are read again on the next touch). Only a hint.
void nyb_map_prefetch(const void *at, size_t bytes);
void nyb_map_release(const void *at, size_t bytes);

// Bytes of a mapping that are worked on before they are released, where all of a large one is read.
enum { NYB_MAP_PIECE = 8 << 20 };

// The whole file as text with a NUL behind it, in the arena.
//
// NYB_E_IO      as nyb_map_open().
// NYB_E_FORMAT  the file is larger than `limit` bytes.
NYB_NODISCARD nyb_status nyb_file_read(nyb_arena *arena, const char *path, size_t limit,
                                       char **text, size_t *length, nyb_err *err);

// Writes a new file beside `path`, syncs it, and renames it to `path`. On an error nothing is
// left behind and an old file at `path` is untouched.
NYB_NODISCARD nyb_status nyb_file_write(const char *path, const void *bytes, size_t length,
                                        nyb_err *err);

NYB_NODISCARD nyb_status nyb_file_copy(const char *from, const char *to, nyb_err *err);

// The folder for files that nobody is to see: TMPDIR, or /tmp.
const char *nyb_file_temporary(void);

// Opens a new file in the folder that has no name and is gone when it is closed. Negative, with
// errno set, when there can be none.
int nyb_file_nameless(const char *folder);

bool nyb_path_exists(const char *path);

// NYB_E_IO, in the words of an open that fails: nothing is there, or it may not be read.
NYB_NODISCARD nyb_status nyb_path_readable(const char *path, nyb_err *err);

bool nyb_path_is_folder(const char *path);

// Makes one folder (its parent has to be there). An existing folder is NYB_E_EXISTS.
NYB_NODISCARD nyb_status nyb_folder_make(const char *path, nyb_err *err);

// Removes the folder and the plain files in it, not what lies deeper. For folders that nybble
// made itself. Missing is fine.
NYB_NODISCARD nyb_status nyb_folder_remove(const char *path, nyb_err *err);

// Syncs what was written to a file to disk.
NYB_NODISCARD nyb_status nyb_file_sync(const char *path, nyb_err *err);

// Syncs the folder's own entries (what was created, renamed or removed in it) to disk.
NYB_NODISCARD nyb_status nyb_folder_sync(const char *path, nyb_err *err);

// Renames and syncs the parent folder.
NYB_NODISCARD nyb_status nyb_rename(const char *from, const char *to, nyb_err *err);

// "folder/name" in the arena; NULL when there is no room.
char *nyb_path_join(nyb_arena *arena, const char *folder, const char *name);

#endif // NYB_CORE_FILE_H_
