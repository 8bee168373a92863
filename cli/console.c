#include "cli/console.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/text.h"

static double now(void)
{
    struct timespec t;
    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

nyb_console nyb_console_new(bool quiet, unsigned verbose)
{
    const nyb_log_level level = quiet          ? NYB_LOG_ERROR
                                : verbose >= 2 ? NYB_LOG_DEBUG
                                : verbose == 1 ? NYB_LOG_INFO
                                               : NYB_LOG_WARNING;
    return (nyb_console){.level = level, .live = !quiet && isatty(STDERR_FILENO)};
}

void nyb_console_clear(nyb_console *console)
{
    if (console && console->drawn) {
        (void) fputs("\r\033[K", stderr);
        console->drawn = false;
    }
}

void nyb_console_say(nyb_console *console, const char *kind, const char *text)
{
    char line[2048];
    nyb_text_clean(line, sizeof(line), text);
    flockfile(stderr);
    nyb_console_clear(console);
    (void) fprintf(stderr, "nybble: %s%s\n", kind, line);
    (void) fflush(stderr);
    funlockfile(stderr);
}

static void on_log(void *user, nyb_log_level level, const char *line)
{
    static const char *const kinds[] = {"", "warning: ", "", "debug: "};
    nyb_console *const console = user;
    if (level <= console->level)
        nyb_console_say(console, kinds[level], line);
}

static size_t terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

// "1:02:03", "4:05"
static void time_text(char text[32], double seconds)
{
    const unsigned long s = seconds < 3e6 ? (unsigned long) (seconds + 0.5) : 3000000;
    if (s >= 3600)
        (void) snprintf(text, 32, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        (void) snprintf(text, 32, "%lu:%02lu", s / 60, s % 60);
}

static void amount_text(char text[32], double amount, const char *unit)
{
    if (unit && strcmp(unit, "bytes") == 0)
        (void) nyb_bytes_text(text, amount > 0 ? (uint64_t) amount : 0);
    else
        (void) snprintf(text, 32, amount < 10 ? "%.2g %.12s" : "%.0f %.12s", amount,
                        unit ? unit : "");
}

// "calibrate  12/30 layers  40 %  1.5 layers/s  0:12 left  model.layers.11"
static void step_text(const nyb_console *console, const nyb_progress *step, char *line, size_t size)
{
    const double spent = console->last_drawn - console->started;
    const double moved = (double) (step->done - console->first_done);
    const double rate = spent > 0.5 && moved > 0 ? moved / spent : 0.0;
    const bool whole = step->unit && strcmp(step->unit, "bytes") == 0;
    char share[64] = "", speed[64] = "", left[64] = "", amount[32], count[32] = "";

    amount_text(amount, (double) step->done, step->unit);
    if (step->total > 0) {
        (void) snprintf(share, sizeof(share), "  %.0f %%",
                        100.0 * (double) step->done / (double) step->total);
        if (!whole)
            (void) snprintf(amount, sizeof(amount), "%llu/%llu %.8s",
                            (unsigned long long) step->done, (unsigned long long) step->total,
                            step->unit ? step->unit : "");
    }
    if (rate > 0) {
        amount_text(count, rate, step->unit);
        (void) snprintf(speed, sizeof(speed), "  %s/s", count);
    }
    if (rate > 0 && step->total > step->done) {
        time_text(count, (double) (step->total - step->done) / rate);
        (void) snprintf(left, sizeof(left), "  %s left", count);
    }
    (void) snprintf(line, size, "%s  %s%s%s%s  %s", step->stage, amount, share, speed, left,
                    step->item ? step->item : "");
}

static void on_progress(void *user, const nyb_progress *step)
{
    nyb_console *const console = user;
    const double t = now();
    if (!console->live)
        return;
    flockfile(stderr);
    if (strncmp(console->stage, step->stage, sizeof(console->stage) - 1) != 0 ||
        step->done < console->first_done) {
        (void) snprintf(console->stage, sizeof(console->stage), "%s", step->stage);
        console->started = t;
        console->last_drawn = 0.0;
        console->first_done = step->done;
    }
    // Ten lines a second are plenty for an eye and cost nothing.
    if (t - console->last_drawn >= 0.1) {
        char line[512], clean[512];
        const size_t width = terminal_width();
        console->last_drawn = t;
        step_text(console, step, line, sizeof(line));
        nyb_text_clean(clean, width < sizeof(clean) ? width : sizeof(clean), line);
        (void) fprintf(stderr, "\r%s\033[K", clean);
        (void) fflush(stderr);
        console->drawn = true;
    }
    funlockfile(stderr);
}

nyb_context nyb_console_context(nyb_console *console)
{
    return (nyb_context){.user = console, .log = on_log, .progress = on_progress};
}
