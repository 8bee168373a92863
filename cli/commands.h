// commands.h - the commands of the program.
#ifndef NYB_CLI_COMMANDS_H_
#define NYB_CLI_COMMANDS_H_

#include "cli/command.h"

// In the order in which they are listed; ends with NULL.
extern const nyb_command *const nyb_commands[];

// NULL when there is none of this name.
const nyb_command *nyb_command_find(const char *name);

// The name of the command nearest to what was typed, NULL when none is near.
const char *nyb_command_nearest(const char *name);

#endif // NYB_CLI_COMMANDS_H_
