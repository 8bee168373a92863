// config_misses.h - everything that a configuration asks for and nybble does not compute, gathered
// so that it can be named at once.
#ifndef NYB_MODEL_CONFIG_MISSES_H_
#define NYB_MODEL_CONFIG_MISSES_H_

#include <stddef.h>

#include "core/status.h"

enum { NYB_MISSES_MOST = 24, NYB_MISS_ROOM = 240 };

// Zero-initialised it is empty.
typedef struct nyb_misses {
    size_t count; // of those that are kept
    size_t more;  // that there was no room for
    char text[NYB_MISSES_MOST][NYB_MISS_ROOM];
} nyb_misses;

// Adds what is missing, without the name of the file: "activation 'x'". What is there already is
// not added again.
__attribute__((format(printf, 2, 3))) void nyb_misses_add(nyb_misses *misses, const char *format,
                                                          ...);

// Adds err's line without the name of the file that it starts with.
void nyb_misses_add_line(nyb_misses *misses, const nyb_err *err, const char *name);

// NYB_E_UNSUPPORTED with all of them in one line; NYB_OK when there is none.
NYB_NODISCARD nyb_status nyb_misses_fail(const nyb_misses *misses, const char *name, nyb_err *err);

#endif // NYB_MODEL_CONFIG_MISSES_H_
