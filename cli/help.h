// help.h - the tables as text for people: --help, manual pages, shell completion.
#ifndef NYB_CLI_HELP_H_
#define NYB_CLI_HELP_H_

#include <stdio.h>

#include "cli/command.h"

void nyb_help_program(FILE *out);
void nyb_help_command(FILE *out, const nyb_command *command);

// Manual pages in man(7); NULL stands for the program itself.
void nyb_help_man(FILE *out, const nyb_command *command);

// A completion script for bash.
void nyb_help_completion(FILE *out);

#endif // NYB_CLI_HELP_H_
