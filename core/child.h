// child.h - work that may crash or never end, in a process of its own.
#ifndef NYB_CORE_CHILD_H_
#define NYB_CORE_CHILD_H_

#include "core/memory.h"

// Memory that this process and the processes that it starts both see, zeroed. It takes room only
// where it is touched. NULL when there is none; given back by nyb_shared_free() with the same size.
void *nyb_shared_alloc(size_t bytes);
void nyb_shared_free(void *at, size_t bytes); // NULL is fine

typedef nyb_status (*nyb_child_work)(void *arg, nyb_err *err);

// Runs work(arg) in a copy of this process that has nothing to say to the user (what it prints is
// lost), and waits for it. Only what it writes into shared memory is seen here; its status and err
// are passed on.
//
//   name     what it works on, for errors
//   seconds  of CPU time after which it is stopped
//
// NYB_E_FORMAT  it crashed or was stopped: err says so, and that the file `name` is the reason.
// NYB_E_IO      there can be no further process.
NYB_NODISCARD nyb_status nyb_child_run(const char *name, unsigned seconds, nyb_child_work work,
                                       void *arg, nyb_err *err);

#endif // NYB_CORE_CHILD_H_
