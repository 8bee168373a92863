// topics.h - tables of what nybble supports, for `nybble help TOPIC`.
#ifndef NYB_CLI_TOPICS_H_
#define NYB_CLI_TOPICS_H_

#include <stdio.h>

#include "cli/command.h"

// Whether there is such a topic.
bool nyb_topic_exists(const char *name);

// Prints its tables, for people or with --json.
nyb_exit nyb_topic_print(const nyb_call *call, const char *name);

// The list of topics, as --help shows it.
void nyb_topics_list(FILE *out, size_t about_at, size_t width);

#endif // NYB_CLI_TOPICS_H_
