// support.h - what nybble supports, as tables of text. The rows are made from the tables that the
// library itself works by, so help and pages that print them cannot say anything else.
#ifndef NYB_SUPPORT_H_
#define NYB_SUPPORT_H_

#include <stdbool.h>
#include <stddef.h>

#include "nybble/status.h"

typedef struct nyb_support_column {
    const char *title;
    bool code; // cells are words of files or of the command line, parted by ", "
} nyb_support_column;

typedef struct nyb_support_table {
    const char *name;  // "families", "ropes", ...: unique among all topics
    const char *about; // what the rows are
    const nyb_support_column *columns;
    size_t column_count;
    const char *const *cells; // [row_count * column_count], row by row; "" where there is nothing
    size_t row_count;
} nyb_support_table;

// The tables of one topic.
typedef struct nyb_support {
    const nyb_support_table *tables;
    size_t count;
    void *owner;
} nyb_support;

typedef struct nyb_support_topic {
    const char *name;  // "families"
    const char *about; // one line for lists
} nyb_support_topic;

// NULL behind the last.
NYB_API const nyb_support_topic *nyb_support_topic_at(size_t index);

// Makes the tables of a topic; nyb_support_close() gives them back.
//
// NYB_E_ARG    there is no such topic.
// NYB_E_NOMEM  no room.
// On every error *out is zeroed.
NYB_API NYB_NODISCARD nyb_status nyb_support_open(nyb_support *out, const char *topic,
                                                  nyb_err *err);
NYB_API void nyb_support_close(nyb_support *support); // zeroed is fine

#endif // NYB_SUPPORT_H_
