// values.h - reading one option's value from text.
#ifndef NYB_CLI_VALUES_H_
#define NYB_CLI_VALUES_H_

#include "cli/command.h"

// Reads `text` into the option's field of the struct at `target`. False, with one clause in
// `why` [256] that says what was wanted, when it does not fit: "wants a whole number from 1 to 8".
bool nyb_value_read(const nyb_option *option, const char *text, void *target, char why[256]);

#endif // NYB_CLI_VALUES_H_
