// journal.h - how far a run has come, on disk, so that it can go on after an interruption.
//
// A text file of JSON lines in the partial output folder. The first line says which run it is;
// then "ready" once everything but the rounded layers is in place; then one line for each
// finished block, written after the block's tensors are synced. A torn last line is as if it had
// never been written.
#ifndef NYB_CALIB_JOURNAL_H_
#define NYB_CALIB_JOURNAL_H_

#include "core/json.h"

#define NYB_JOURNAL_NAME "nybble_journal.jsonl"

typedef struct nyb_journal {
    int file;
    char *path;
    bool ready;
    json_t *blocks; // the finished blocks' lines, in order: [{"block": 0, "layers": [...]}, ...]
} nyb_journal;

// Starts a new journal in the folder. NYB_E_IO: the system refused.
NYB_NODISCARD nyb_status nyb_journal_create(nyb_journal *out, const char *folder, const json_t *run,
                                            nyb_err *err);

// Takes up an old one.
//
// NYB_E_ARG     it is of another run: err names the first difference.
// NYB_E_IO      it is missing or unreadable.
// NYB_E_FORMAT  it is damaged, other than by a torn last line.
NYB_NODISCARD nyb_status nyb_journal_reopen(nyb_journal *out, const char *folder, const json_t *run,
                                            nyb_err *err);

void nyb_journal_close(nyb_journal *journal); // zeroed is fine

// Appends a line and syncs it.
NYB_NODISCARD nyb_status nyb_journal_ready(nyb_journal *journal, nyb_err *err);

// Takes over `line` (also on an error), whose "block" is the number of blocks so far.
NYB_NODISCARD nyb_status nyb_journal_block(nyb_journal *journal, json_t *line, nyb_err *err);

// Removes the journal of a run that is complete, from the folder as it is called now.
NYB_NODISCARD nyb_status nyb_journal_remove(nyb_journal *journal, const char *folder, nyb_err *err);

// The path of the first place where two documents differ, for example "samples.count", with both
// values; false when they are equal.
bool nyb_json_difference(const json_t *a, const json_t *b, char *text, size_t room);

#endif // NYB_CALIB_JOURNAL_H_
