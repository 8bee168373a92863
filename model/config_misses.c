#include "model/config_misses.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void nyb_misses_add(nyb_misses *misses, const char *format, ...)
{
    char text[NYB_MISS_ROOM];
    va_list args;
    va_start(args, format);
    (void) vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    for (size_t i = 0; i < misses->count; i++) {
        if (strcmp(misses->text[i], text) == 0)
            return;
    }
    if (misses->count == NYB_MISSES_MOST)
        misses->more++;
    else
        memcpy(misses->text[misses->count++], text, sizeof(text));
}

void nyb_misses_add_line(nyb_misses *misses, const nyb_err *err, const char *name)
{
    const size_t length = strlen(name);
    const char *text = err->text;
    if (strncmp(text, name, length) == 0 && text[length] == ':' && text[length + 1] == ' ')
        text += length + 2;
    nyb_misses_add(misses, "%s", text);
}

nyb_status nyb_misses_fail(const nyb_misses *misses, const char *name, nyb_err *err)
{
    enum { ROOM = 960, TAIL = 32 }; // of an error's line, with the file's name in front
    char line[ROOM];
    size_t used = 0, shown = 0;
    const size_t room = strlen(name) < ROOM / 2 ? ROOM - strlen(name) : ROOM / 2;
    if (misses->count == 0)
        return NYB_OK;
    for (; shown < misses->count; shown++) {
        const size_t length = strlen(misses->text[shown]);
        if (used + length + TAIL > room)
            break;
        used += (size_t) snprintf(line + used, sizeof(line) - used, "%s%s", shown ? "; " : "",
                                  misses->text[shown]);
    }
    const size_t rest = misses->count - shown + misses->more;
    if (rest > 0)
        (void) snprintf(line + used, sizeof(line) - used, "; and %zu more", rest);
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: not supported: %s", name, line);
}
