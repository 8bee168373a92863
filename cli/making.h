// making.h - the options of commands that make a folder of a folder: convert, merge, rotate.
#ifndef NYB_CLI_MAKING_H_
#define NYB_CLI_MAKING_H_

#include "cli/command.h"

typedef struct nyb_making {
    const char *output;
    size_t shard_size;
    bool force;
} nyb_making;

#define NYB_MAKING_DEFAULTS                                                                        \
    {                                                                                              \
        .shard_size = (size_t) 5000000000                                                          \
    }

// The head and the tail of a command's table, whose options struct has the nyb_making `of`.
#define NYB_MAKING_HEAD(type, of)                                                                  \
    {                                                                                              \
        "output", 'o', NYB_OPTION_PATH, NYB_INTO(type, of.output),                                 \
            .value = "FOLDER", .required = true,                                                   \
            .about = "Folder to write; it appears when it is complete."                            \
    }
#define NYB_MAKING_TAIL(type, of)                                                                  \
    {"shard-size",     0,                                                                          \
     NYB_OPTION_BYTES, NYB_INTO(type, of.shard_size),                                              \
     .value = "BYTES", .about = "Largest tensor file."},                                           \
    {                                                                                              \
        "force", 0, NYB_OPTION_FLAG, NYB_INTO(type, of.force),                                     \
            .about = "Replace a folder that nybble made before."                                   \
    }

#endif // NYB_CLI_MAKING_H_
