// Where in a model a module is, from its name alone.
#include <ctype.h>
#include <string.h>

#include "eval/report_data.h"

enum { KINDS_MAX = 512 };

static size_t part_length(const char *part)
{
    return strcspn(part, ".");
}

static bool is_number(const char *part)
{
    size_t length = part_length(part), digits = 0;
    while (digits < length && isdigit((unsigned char) part[digits]))
        digits++;
    return length > 0 && length < 7 && digits == length;
}

static size_t number_of(const char *part)
{
    size_t value = 0;
    for (size_t i = 0; i < part_length(part); i++)
        value = value * 10 + (size_t) (part[i] - '0');
    return value;
}

// The rest of the name, with a star for every number in it.
static char *kind_of(nyb_arena *arena, const char *rest)
{
    char *const kind = nyb_arena_alloc(arena, strlen(rest) + 1, 1);
    size_t to = 0;
    for (const char *part = rest; kind && *part;) {
        const size_t length = part_length(part);
        if (is_number(part)) {
            kind[to++] = '*';
        } else {
            memcpy(kind + to, part, length);
            to += length;
        }
        part += length;
        if (*part == '.')
            kind[to++] = *part++;
    }
    return kind;
}

// The list of kinds with one more at its end.
static nyb_status add_kind(nyb_report_data *data, const char *full, nyb_err *err)
{
    if (!data->kinds)
        data->kinds = nyb_arena_alloc(&data->arena, KINDS_MAX, sizeof(*data->kinds));
    if (!data->kinds)
        return nyb_no_memory(err, "kinds", KINDS_MAX, sizeof(*data->kinds));
    if (data->kind_count == KINDS_MAX)
        return nyb_fail(err, NYB_E_FORMAT, "more than %d kinds of modules, the last one '%.200s'",
                        KINDS_MAX, full);
    data->kinds[data->kind_count++] = (nyb_report_kind){.full = full, .shown = full};
    return NYB_OK;
}

nyb_status nyb_report_place(nyb_report_data *data, const char *module, size_t *kind, size_t *depth,
                            nyb_err *err)
{
    const char *part = module;
    while (*part && !is_number(part)) {
        part += part_length(part);
        part += *part == '.';
    }
    const bool inside = *part && part[part_length(part)] == '.';
    const size_t block = inside ? number_of(part) : 0;
    const nyb_arena_mark mark = nyb_arena_here(&data->arena);
    const char *const full = kind_of(&data->arena, inside ? part + part_length(part) + 1 : module);
    if (!full)
        return nyb_no_memory(err, module, strlen(module), 1);
    if (block >= NYB_REPORT_DEPTH)
        return nyb_fail(err, NYB_E_FORMAT, "'%.200s': block %zu, at most %d are shown", module,
                        block, NYB_REPORT_DEPTH);
    *depth = block;
    *kind = 0;
    while (*kind < data->kind_count && strcmp(data->kinds[*kind].full, full) != 0)
        *kind += 1;
    if (*kind == data->kind_count)
        return add_kind(data, full, err);
    nyb_arena_rewind(&data->arena, mark);
    return NYB_OK;
}

void nyb_report_shorten(nyb_report_data *data)
{
    for (size_t i = 0; i < data->kind_count; i++) {
        const char *const dot = strrchr(data->kinds[i].full, '.');
        const char *const last = dot ? dot + 1 : data->kinds[i].full;
        bool alone = *last != '\0';
        for (size_t k = 0; alone && k < data->kind_count; k++) {
            const char *const other = strrchr(data->kinds[k].full, '.');
            alone = k == i || strcmp(other ? other + 1 : data->kinds[k].full, last) != 0;
        }
        data->kinds[i].shown = alone ? last : data->kinds[i].full;
    }
}
