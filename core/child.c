#include "core/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

void *nyb_shared_alloc(size_t bytes)
{
    void *const at = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

void nyb_shared_free(void *at, size_t bytes)
{
    if (at)
        (void) munmap(at, bytes ? bytes : 1);
}

// What the other process leaves behind.
typedef struct answer {
    bool complete;
    nyb_status status;
    nyb_err err;
} answer;

// Signals that the caller handles are not this process's business, and neither is its terminal.
static void keep_quiet(unsigned seconds)
{
    const struct rlimit none = {0}, cpu = {.rlim_cur = seconds, .rlim_max = seconds};
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void) dup2(nowhere, STDOUT_FILENO);
    (void) dup2(nowhere, STDERR_FILENO);
    (void) signal(SIGINT, SIG_DFL);
    (void) signal(SIGTERM, SIG_DFL);
    (void) setrlimit(RLIMIT_CORE, &none);
    (void) setrlimit(RLIMIT_CPU, &cpu);
}

static nyb_status wait_for(pid_t child, const char *name, unsigned seconds, const answer *said,
                           nyb_err *err)
{
    int state = 0;
    pid_t ended;
    do {
        ended = waitpid(child, &state, 0);
    } while (ended < 0 && errno == EINTR);
    // Without a state (the process waits for its children elsewhere) the answer alone tells.
    if (said->complete) {
        if (said->status != NYB_OK && err)
            *err = said->err;
        return said->status;
    }
    if (ended == child && WIFSIGNALED(state) &&
        (WTERMSIG(state) == SIGXCPU || WTERMSIG(state) == SIGKILL))
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: reading it was stopped after %u s or for its memory: the file is "
                        "damaged, or made to do harm",
                        name, seconds);
    return nyb_fail(err, NYB_E_FORMAT,
                    "%s: reading it crashed: the file is damaged, or made to do harm", name);
}

nyb_status nyb_child_run(const char *name, unsigned seconds, nyb_child_work work, void *arg,
                         nyb_err *err)
{
    answer *const said = nyb_shared_alloc(sizeof(*said));
    if (!said)
        return nyb_no_memory(err, "another process's answer", 1, sizeof(*said));
    const pid_t child = fork();
    if (child == 0) {
        keep_quiet(seconds);
        said->status = work(arg, &said->err);
        said->complete = true;
        // Without the caller's exit handlers and buffers.
        _exit(0);
    }
    const nyb_status status =
        child > 0 ? wait_for(child, name, seconds, said, err)
                  : nyb_fail(err, NYB_E_IO, "%s: cannot start a process to read it: %s", name,
                             strerror(errno));
    nyb_shared_free(said, sizeof(*said));
    return status;
}
