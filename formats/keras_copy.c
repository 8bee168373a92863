#include "formats/keras_copy.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "formats/keras_file.h"

enum { DEPTH = 16 };

typedef struct copying {
    unsigned depth;
    nyb_err *err;
} copying;

static bool is_weights(const char *name)
{
    return strcmp(name, "config.json") == 0 || fnmatch("model.weights.*", name, 0) == 0 ||
           fnmatch("model_[0-9]*.weights.h5", name, 0) == 0;
}

static nyb_status copy_folder(copying *c, const char *from, const char *to);

static nyb_status copy_entry(copying *c, const char *from, const char *to)
{
    return nyb_path_is_folder(from) ? copy_folder(c, from, to) : nyb_file_copy(from, to, c->err);
}

static nyb_status copy_entries(copying *c, DIR *list, const char *from, const char *to)
{
    nyb_status status = NYB_OK;
    const struct dirent *entry;
    while (status == NYB_OK && (entry = readdir(list))) {
        nyb_arena arena = {0};
        const char *const name = entry->d_name;
        const char *const source = nyb_path_join(&arena, from, name);
        const char *const target = nyb_path_join(&arena, to, name);
        if (!source || !target)
            status = nyb_no_memory(c->err, from, 1, 1);
        else if (*name != '.' && !(c->depth == 1 && is_weights(name)))
            status = copy_entry(c, source, target);
        nyb_arena_clear(&arena);
    }
    return status;
}

static nyb_status copy_folder(copying *c, const char *from, const char *to)
{
    if (++c->depth > DEPTH)
        return nyb_fail(c->err, NYB_E_UNSUPPORTED, "%s: folders are nested too deep", from);
    nyb_status status = nyb_folder_make(to, c->err);
    DIR *const list = status == NYB_OK ? opendir(from) : NULL;
    if (status == NYB_OK && !list)
        status = nyb_fail(c->err, NYB_E_IO, "%s: cannot list the folder", from);
    if (list) {
        status = copy_entries(c, list, from, to);
        (void) closedir(list);
    }
    c->depth--;
    return status;
}

nyb_status nyb_keras_copy_folder(const char *from, const char *to, nyb_err *err)
{
    return copy_folder(&(copying){.err = err}, from, to);
}

static void remove_entries(DIR *list, const char *path)
{
    const struct dirent *entry;
    while ((entry = readdir(list))) {
        nyb_arena arena = {0};
        const char *const name = entry->d_name;
        const char *const inner = nyb_path_join(&arena, path, name);
        if (inner && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            nyb_keras_remove(inner);
        nyb_arena_clear(&arena);
    }
}

void nyb_keras_remove(const char *path)
{
    // A link is removed, not followed.
    if (unlink(path) == 0)
        return;
    DIR *const list = opendir(path);
    if (!list)
        return;
    remove_entries(list, path);
    (void) closedir(list);
    (void) rmdir(path);
}

static nyb_status replace_folder(const char *partial, const char *path, nyb_err *err)
{
    nyb_arena arena = {0};
    const char *const old = nyb_arena_format(&arena, "%s.old", path);
    nyb_status status = NYB_OK;
    if (!nyb_keras_is(path))
        status =
            nyb_fail(err, NYB_E_EXISTS, "%s: not a Keras checkpoint, so it is not replaced", path);
    else
        status = old ? nyb_rename(path, old, err) : nyb_no_memory(err, path, 1, 1);
    if (status == NYB_OK) {
        status = nyb_rename(partial, path, err);
        if (status == NYB_OK)
            nyb_keras_remove(old);
        else if (nyb_rename(old, path, NULL) != NYB_OK) // the first error is the one to tell
            status = nyb_fail(err, NYB_E_IO, "%s: could not be replaced; it lies in %s", path, old);
    }
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_keras_put_in_place(const char *partial, const char *path, nyb_err *err)
{
    if (nyb_path_is_folder(path))
        return replace_folder(partial, path, err);
    return nyb_rename(partial, path, err);
}
