// main.c - finds the command, reads its options, runs it, and turns the outcome into an exit
// status.
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/help.h"
#include "cli/options.h"
#include "nybble/version.h"

// Where the library could not make BLAS use the kernels that fit this CPU, a new start with its
// environment variable set can. The variable being set is what keeps this from happening twice.
static void restart_for_blas(char **argv)
{
    const char *const core = nyb_blas_core_wanted();
    if (core && setenv("OPENBLAS_CORETYPE", core, 0) == 0)
        (void) execv("/proc/self/exe", argv); // comes back only on failure: go on, slower
}

// Only what a signal handler may call.
static void on_crash(int signal)
{
    static const char bug[] = "nybble: internal error, a fault of nybble itself\n";
    static const char cut[] =
        "nybble: a file became shorter while it was read, or its disk failed\n";
    const ssize_t written = signal == SIGBUS ? write(STDERR_FILENO, cut, sizeof(cut) - 1)
                                             : write(STDERR_FILENO, bug, sizeof(bug) - 1);
    (void) written;
    _exit(signal == SIGBUS ? NYB_EXIT_FAILED : NYB_EXIT_BUG);
}

// A closed pipe ends the program quietly, as it does other text tools, even when whoever started
// it had that signal ignored. Crashes get an exit status; builds with assertions leave them to
// debuggers and sanitizers, but for SIGBUS, which a file that shrinks raises.
static void set_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    (void) sigaction(SIGPIPE, &action, NULL);
    action.sa_handler = SIG_IGN; // a file over the user's size limit is an error of its write
    (void) sigaction(SIGXFSZ, &action, NULL);
    action.sa_handler = on_crash;
    (void) sigaction(SIGBUS, &action, NULL);
#ifdef NDEBUG
    (void) sigaction(SIGSEGV, &action, NULL);
    (void) sigaction(SIGABRT, &action, NULL);
    (void) sigaction(SIGFPE, &action, NULL);
    (void) sigaction(SIGILL, &action, NULL);
#endif
}

// A result that did not reach its file is a failure, however well the command went.
static nyb_exit close_output(nyb_exit code)
{
    const bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) == 0 && !failed)
        return code;
    char line[256];
    (void) snprintf(line, sizeof(line), "cannot write to standard output: %s",
                    errno ? strerror(errno) : "an earlier write failed");
    nyb_console_say(NULL, "", line);
    return code == NYB_EXIT_OK ? NYB_EXIT_FAILED : code;
}

// A word as a shell takes it back.
static json_t *quoted(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "@%_+=:,./-";
    if (*word && strspn(word, plain) == strlen(word))
        return json_string(word);
    json_t *text = json_string("'");
    while (text && *word) {
        const size_t some = strcspn(word, "'");
        json_t *const more = json_sprintf("%s%.*s%s", json_string_value(text), (int) some, word,
                                          word[some] ? "'\\''" : "");
        word += word[some] ? some + 1 : some;
        json_decref(text);
        text = more;
    }
    json_t *const whole = text ? json_sprintf("%s'", json_string_value(text)) : NULL;
    json_decref(text);
    return whole;
}

// NULL when a word is not UTF-8.
static json_t *line_of(const char *command, size_t count, char **words)
{
    json_t *line = json_sprintf("nybble %s", command);
    for (size_t i = 0; line && i < count; i++) {
        json_t *const word = quoted(words[i]);
        json_t *const more =
            word ? json_sprintf("%s %s", json_string_value(line), json_string_value(word)) : NULL;
        json_decref(word);
        json_decref(line);
        line = more;
    }
    return line;
}

static nyb_exit run_command(const nyb_command *command, size_t count, char **words,
                            const char *line)
{
    nyb_options_store store;
    nyb_common common = {0};
    nyb_call call = {.command = command, .line = line};
    const nyb_exit code = nyb_options_parse(&call, &store, &common, count, words);
    if (code != NYB_EXIT_OK)
        return code;
    if (common.help) {
        nyb_help_command(stdout, command);
        return NYB_EXIT_OK;
    }

    nyb_console console = nyb_console_new(common.quiet, common.verbose);
    call.context = nyb_console_context(&console);
    call.context.threads = (unsigned) common.threads;
    call.context.memory_bytes = common.memory;
    call.context.compute = (nyb_compute) common.compute;
    call.json = common.json;
    call.quiet = common.quiet;
    call.verbose = common.verbose;

    const nyb_exit result = command->run(&call);
    nyb_console_clear(&console);
    return result;
}

static nyb_exit no_command(const char *name)
{
    const char *const near = nyb_command_nearest(name);
    char line[256];
    (void) snprintf(line, sizeof(line), "no command '%.60s'%s%s%s (see 'nybble help')", name,
                    near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    nyb_console_say(NULL, "", line);
    return NYB_EXIT_USAGE;
}

static nyb_exit run_program(int argc, char **argv)
{
    if (argc < 2) {
        nyb_help_program(stderr);
        return NYB_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        nyb_help_program(stdout);
        return NYB_EXIT_OK;
    }
    const char *const name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    const nyb_command *const command = nyb_command_find(name);
    if (!command)
        return no_command(name);
    json_t *const line = line_of(command->name, (size_t) argc - 2, argv + 2);
    const nyb_exit code =
        run_command(command, (size_t) argc - 2, argv + 2, json_string_value(line));
    json_decref(line);
    return code;
}

// Large buffers go back to the system as soon as they are freed. By default the C library keeps
// more of them the larger they are, and a run's peak grows to several times what it uses.
static void set_memory(void)
{
#ifdef M_MMAP_THRESHOLD
    (void) mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

int main(int argc, char **argv)
{
    restart_for_blas(argv);
    set_memory();
    set_signals();
    return (int) close_output(run_program(argc, argv));
}
