// console.h - messages and progress on stderr.
#ifndef NYB_CLI_CONSOLE_H_
#define NYB_CLI_CONSOLE_H_

#include <stdbool.h>
#include <stdint.h>

#include "nybble/context.h"

// Belongs to one run of the program; its address is the context's `user`.
typedef struct nyb_console {
    nyb_log_level level;        // the least important level that is shown
    bool live;                  // stderr is a terminal and progress is wanted
    bool drawn;                 // a progress line stands on the terminal
    char stage[32];             // of the line
    double started, last_drawn; // seconds of a clock that never steps back
    uint64_t first_done;        // where the stage stood when it was first heard of
} nyb_console;

nyb_console nyb_console_new(bool quiet, unsigned verbose);

// The context whose messages and progress go to this console.
nyb_context nyb_console_context(nyb_console *console);

// Wipes the progress line, so that something else can be printed.
void nyb_console_clear(nyb_console *console);

// Prints "nybble: <kind><text>" and a line end on stderr, after wiping the progress line.
// console may be NULL. kind is "" or, for example, "warning: ".
void nyb_console_say(nyb_console *console, const char *kind, const char *text);

#endif // NYB_CLI_CONSOLE_H_
