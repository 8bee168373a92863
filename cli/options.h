// options.h - the option tables at work: reading a command line, and telling about options.
#ifndef NYB_CLI_OPTIONS_H_
#define NYB_CLI_OPTIONS_H_

#include "cli/command.h"

enum { NYB_OPTIONS_BYTES = 1024, NYB_OPTIONS_MAX = 64 };

// Where a command's options struct lives while it runs.
typedef union nyb_options_store {
    max_align_t align;
    unsigned char bytes[NYB_OPTIONS_BYTES];
} nyb_options_store;

// The options that every command has, but for --memory and --compute.
typedef struct nyb_common {
    size_t threads, memory;
    int compute;
    unsigned verbose;
    bool json, quiet, help;
} nyb_common;

extern const nyb_option nyb_common_options[];

// Whether this common option belongs to the command.
bool nyb_common_applies(const nyb_command *command, const nyb_option *option);

// Reads the words behind the command's name. Operands are moved to the front of `words`, which
// call->operands then points to. call->command has to be set, and call->context.user may be.
// Prints what is wrong and returns NYB_EXIT_USAGE.
nyb_exit nyb_options_parse(nyb_call *call, nyb_options_store *store, nyb_common *common,
                           size_t count, char **words);

// What may follow the option's name: "N", "none|group|full", "" for flags.
void nyb_option_value_text(const nyb_option *option, char *text, size_t size);

// The default as --help shows it, "" when there is nothing to show.
void nyb_option_default_text(const nyb_option *option, const void *defaults, char *text,
                             size_t size);

// Whether the option stands alone on the command line.
bool nyb_option_is_flag(const nyb_option *option);

// Whether the field that the option points to can hold its kind.
bool nyb_option_is_sound(const nyb_option *option, size_t options_size);

#endif // NYB_CLI_OPTIONS_H_
