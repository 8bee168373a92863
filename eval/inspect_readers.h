// inspect_readers.h - what other programs accept, as a table of predicates with reasons.
#ifndef NYB_EVAL_INSPECT_READERS_H_
#define NYB_EVAL_INSPECT_READERS_H_

#include "nybble/inspect.h"

// Fills one entry for each program that the table knows. `out` has room for
// nyb_inspect_reader_count().
void nyb_inspect_judge(nyb_inspect_reader *out, const nyb_inspection *inspection);

size_t nyb_inspect_reader_count(void);

#endif // NYB_EVAL_INSPECT_READERS_H_
