// archive.h - zip archives; the only place that knows the library.
#ifndef NYB_FORMATS_ARCHIVE_H_
#define NYB_FORMATS_ARCHIVE_H_

#include "core/arena.h"

typedef struct nyb_archive nyb_archive;

// NYB_E_IO, NYB_E_FORMAT  it cannot be read, or is no archive; or a member's name is used twice,
//                         encrypted, or leads out of a folder.
NYB_NODISCARD nyb_status nyb_archive_open(nyb_archive **out, const char *path, nyb_err *err);
void nyb_archive_close(nyb_archive *archive); // NULL is fine

size_t nyb_archive_count(const nyb_archive *archive);
const char *nyb_archive_name(const nyb_archive *archive, size_t index);
bool nyb_archive_has(const nyb_archive *archive, const char *name);

// A member as text with a NUL behind it, in the arena. NYB_E_FORMAT: it is not there, damaged, or
// larger than `limit`.
NYB_NODISCARD nyb_status nyb_archive_text(nyb_archive *archive, const char *name, size_t limit,
                                          nyb_arena *arena, char **text, size_t *length,
                                          nyb_err *err);

// Writes a member to an open file. NYB_E_FORMAT: as above, or it claims to be larger than what is
// stored can become.
NYB_NODISCARD nyb_status nyb_archive_extract(nyb_archive *archive, const char *name, int file,
                                             nyb_err *err);

// What a new archive has under a name: bytes, a file, or a member of another archive. Members are
// stored as they are, without times.
typedef struct nyb_archive_member {
    const char *name;
    const void *bytes; // NULL: see file
    size_t length;
    const char *file;  // NULL: see from
    nyb_archive *from; // its member of the same name
} nyb_archive_member;

// Writes the archive; what is at `path` is replaced.
NYB_NODISCARD nyb_status nyb_archive_write(const char *path, const nyb_archive_member *members,
                                           size_t count, nyb_err *err);

#endif // NYB_FORMATS_ARCHIVE_H_
