#include "calib/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

enum { JOURNAL_LIMIT = 1 << 30 };

static nyb_status fault(const nyb_journal *j, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_IO, "%s: cannot %s: %s", j->path, what, strerror(errno));
}

static nyb_status append(nyb_journal *j, const json_t *line, nyb_err *err)
{
    char *const text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!text)
        return nyb_no_memory(err, j->path, 1, 1);
    const size_t length = strlen(text);
    text[length] = '\n'; // in place of the NUL
    size_t at = 0;
    nyb_status status = NYB_OK;
    while (status == NYB_OK && at < length + 1) {
        const ssize_t wrote = write(j->file, text + at, length + 1 - at);
        if (wrote >= 0)
            at += (size_t) wrote;
        else if (errno != EINTR)
            status = fault(j, "write it", err);
    }
    free(text);
    if (status == NYB_OK && fsync(j->file) != 0)
        status = fault(j, "sync it", err);
    return status;
}

static nyb_status open_file(nyb_journal *out, const char *folder, int flags, nyb_err *err)
{
    nyb_arena arena = {0};
    *out = (nyb_journal){.file = -1, .blocks = json_array()};
    const char *const path = nyb_path_join(&arena, folder, NYB_JOURNAL_NAME);
    out->path = path ? nyb_strdup(path) : NULL;
    nyb_arena_clear(&arena);
    if (!out->path || !out->blocks)
        return nyb_no_memory(err, "journal", 1, 1);
    out->file = open(out->path, flags | O_CLOEXEC, 0666);
    return out->file >= 0 ? NYB_OK : fault(out, "open it", err);
}

nyb_status nyb_journal_create(nyb_journal *out, const char *folder, const json_t *run, nyb_err *err)
{
    nyb_status status = open_file(out, folder, O_WRONLY | O_CREAT | O_EXCL, err);
    if (status == NYB_OK)
        status = append(out, run, err);
    if (status == NYB_OK)
        status = nyb_folder_sync(folder, err);
    if (status != NYB_OK)
        nyb_journal_close(out);
    return status;
}

// Whether member `key` differs, and how.
static bool member_differs(const json_t *a, const json_t *b, const char *key, char *text,
                           size_t room)
{
    char inner[256];
    if (!nyb_json_difference(json_object_get(a, key), json_object_get(b, key), inner,
                             sizeof(inner)))
        return false;
    (void) snprintf(text, room, "%s%s%s", key, inner[0] == ' ' ? "" : ".", inner);
    return true;
}

bool nyb_json_difference(const json_t *a, const json_t *b, char *text, size_t room)
{
    if (json_equal(a, b))
        return false;

    const char *key;
    json_t *value;
    if (json_is_object(a) && json_is_object(b)) {
        json_object_foreach((json_t *) (uintptr_t) a, key, value)
        {
            if (member_differs(a, b, key, text, room))
                return true;
        }
        json_object_foreach((json_t *) (uintptr_t) b, key, value)
        {
            if (member_differs(a, b, key, text, room))
                return true;
        }
    }
    char *const left = a ? json_dumps(a, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    char *const right = b ? json_dumps(b, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    (void) snprintf(text, room, " is %.80s, was %.80s", left ? left : "missing",
                    right ? right : "missing");
    free(left);
    free(right);
    return true;
}

static nyb_status check_run(const nyb_journal *j, const json_t *old, const json_t *run,
                            nyb_err *err)
{
    char difference[512];
    if (nyb_json_difference(run, old, difference, sizeof(difference)))
        return nyb_fail(err, NYB_E_ARG,
                        "%s: belongs to another run: %s; resume with the same settings, or start "
                        "over with --force",
                        j->path, difference);
    return NYB_OK;
}

// One line after the first.
static nyb_status take_line(nyb_journal *j, json_t *line, nyb_err *err)
{
    if (json_is_true(json_object_get(line, "ready"))) {
        j->ready = true;
        json_decref(line);
        return NYB_OK;
    }
    const json_t *const block = json_object_get(line, "block");
    if (!j->ready || !json_is_integer(block) ||
        (size_t) json_integer_value(block) != json_array_size(j->blocks)) {
        json_decref(line);
        return nyb_fail(err, NYB_E_FORMAT, "%s: damaged after %zu blocks; start over with --force",
                        j->path, json_array_size(j->blocks));
    }
    json_array_append_new(j->blocks, line);
    return NYB_OK;
}

// Reads the whole lines and cuts off what a kill left of the last one.
static nyb_status read_lines(nyb_journal *j, const char *text, const json_t *run, nyb_err *err)
{
    size_t number = 0;
    const char *at = text;
    for (const char *end = strchr(at, '\n'); end; at = end + 1, end = strchr(at, '\n')) {
        json_t *line = NULL;
        nyb_status status = nyb_json_parse(&line, at, (size_t) (end - at), j->path, err);
        if (status == NYB_OK && number++ == 0) {
            status = check_run(j, line, run, err);
            json_decref(line);
        } else if (status == NYB_OK) {
            status = take_line(j, line, err);
        }
        if (status != NYB_OK)
            return status;
    }
    if (number == 0)
        return NYB_OK; // killed while the first line was being written
    if (ftruncate(j->file, at - text) != 0 || lseek(j->file, 0, SEEK_END) < 0)
        return fault(j, "cut it", err);
    return NYB_OK;
}

nyb_status nyb_journal_reopen(nyb_journal *out, const char *folder, const json_t *run, nyb_err *err)
{
    nyb_arena arena = {0};
    char *text = NULL;
    size_t length = 0;
    nyb_status status = open_file(out, folder, O_WRONLY, err);
    if (status == NYB_OK)
        status = nyb_file_read(&arena, out->path, JOURNAL_LIMIT, &text, &length, err);
    if (status == NYB_OK)
        status = read_lines(out, text, run, err);
    nyb_arena_clear(&arena);
    if (status != NYB_OK)
        nyb_journal_close(out);
    return status;
}

void nyb_journal_close(nyb_journal *journal)
{
    if (journal->path && journal->file >= 0)
        (void) close(journal->file);
    nyb_free(journal->path);
    json_decref(journal->blocks);
    *journal = (nyb_journal){.file = -1};
}

nyb_status nyb_journal_ready(nyb_journal *journal, nyb_err *err)
{
    json_t *const line = json_pack("{s:b}", "ready", 1);
    const nyb_status status = append(journal, line, err);
    json_decref(line);
    journal->ready = status == NYB_OK;
    return status;
}

nyb_status nyb_journal_block(nyb_journal *journal, json_t *line, nyb_err *err)
{
    const nyb_status status = append(journal, line, err);
    if (status != NYB_OK || json_array_append(journal->blocks, line) != 0) {
        json_decref(line);
        return status != NYB_OK ? status : nyb_no_memory(err, "journal", 1, 1);
    }
    json_decref(line);
    return NYB_OK;
}

nyb_status nyb_journal_remove(nyb_journal *journal, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    const char *const path = nyb_path_join(&arena, folder, NYB_JOURNAL_NAME);
    nyb_status status = path ? NYB_OK : nyb_no_memory(err, "path", 1, 1);
    if (status == NYB_OK && unlink(path) != 0)
        status = nyb_fail(err, NYB_E_IO, "%s: cannot remove it: %s", path, strerror(errno));
    nyb_arena_clear(&arena);
    nyb_journal_close(journal);
    return status;
}
