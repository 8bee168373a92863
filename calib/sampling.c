// From files to the windows that a model is calibrated on.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/samples.h"
#include "core/file.h"
#include "core/log.h"
#include "core/random.h"

// One file's part of the windows.
typedef struct part {
    const char *path;
    double weight;
    size_t wanted;
    nyb_stream stream;
    size_t *windows; // [count] which ones
    size_t *usable;  // [available] per document: those of 2 tokens or more
    size_t count, length, step, available;
} part;

// Which windows are taken, in rising order: the first ones, or a draw without repetition
// (Knuth's selection sampling, The Art of Computer Programming 3.4.2, algorithm S).
static void choose(size_t *windows, size_t wanted, size_t available,
                   const nyb_samples_params *params)
{
    uint64_t state = params->seed;
    size_t taken = 0;
    for (size_t i = 0; taken < wanted; i++) {
        if (!params->shuffle || nyb_random_below(&state, available - i) < wanted - taken)
            windows[taken++] = i;
    }
}

static bool by_document(const part *p, const nyb_samples_params *params)
{
    return params->per_document && p->stream.row_length == 0;
}

// Documents of a file without any are its whole text.
static size_t document_length(const nyb_stream *s, size_t i, size_t *start)
{
    *start = s->documents ? s->documents[i] : 0;
    return (s->documents ? s->documents[i + 1] : s->count) - *start;
}

static nyb_status measure_documents(const nyb_context *ctx, part *p,
                                    const nyb_samples_params *params, nyb_err *err)
{
    const nyb_stream *const s = &p->stream;
    const size_t documents = s->documents ? s->document_count : 1;
    size_t start = 0, longer = 0;
    p->usable = nyb_arena_alloc(&p->stream.arena, documents + 1, sizeof(*p->usable));
    if (!p->usable)
        return nyb_no_memory(err, "documents", documents, sizeof(*p->usable));
    for (size_t i = 0; i < documents; i++) {
        const size_t length = document_length(s, i, &start) + s->begins;
        if (length < 2)
            continue;
        p->usable[p->available++] = i;
        longer += length > params->length;
        p->length = length < p->length        ? p->length
                    : length < params->length ? length
                                              : params->length;
    }
    if (longer > 0)
        nyb_log(ctx, NYB_LOG_INFO, "%s: %zu of %zu documents are longer than %zu tokens and cut",
                s->path, longer, documents, params->length);
    return NYB_OK;
}

// The shape of what can be cut out of a text: windows of p->length every p->step tokens.
static void measure_text(const nyb_context *ctx, part *p, const nyb_samples_params *params)
{
    const nyb_stream *const s = &p->stream;
    const size_t longest = s->row_length ? s->row_length : s->count + s->begins;
    p->length = params->length < longest ? params->length : longest;
    p->step = s->row_length ? s->row_length : p->length - s->begins;
    p->available = s->count / p->step;
    if (p->length < params->length)
        nyb_log(ctx, NYB_LOG_WARNING, "%s: windows have %zu tokens instead of %zu: %s", s->path,
                p->length, params->length,
                s->row_length ? "its rows are that short" : "the text is that short");
}

static nyb_status measure(const nyb_context *ctx, part *p, const nyb_samples_params *params,
                          nyb_err *err)
{
    const nyb_stream *const s = &p->stream;
    nyb_status status = NYB_OK;
    if (s->count < 2 || s->row_length == 1)
        return nyb_fail(err, NYB_E_SHAPE, "%s: has %zu tokens, want 2 or more", s->path,
                        s->row_length ? s->row_length : s->count);
    if (s->line_ends)
        nyb_log(ctx, NYB_LOG_INFO, "%s: %zu line ends CR LF or CR are read as LF", s->path,
                s->line_ends);
    if (by_document(p, params))
        status = measure_documents(ctx, p, params, err);
    else
        measure_text(ctx, p, params);
    if (status == NYB_OK && p->available == 0)
        status = nyb_fail(err, NYB_E_SHAPE, "%s: no document has 2 tokens or more", s->path);
    if (status != NYB_OK)
        return status;
    p->count = p->wanted < p->available ? p->wanted : p->available;
    if (p->count < p->wanted)
        nyb_log(ctx, NYB_LOG_WARNING,
                "%s: %zu windows of %zu tokens instead of %zu: the %s no more", s->path, p->count,
                p->length, p->wanted, by_document(p, params) ? "file has" : "text has");
    p->windows = nyb_arena_alloc(&p->stream.arena, p->count, sizeof(*p->windows));
    if (!p->windows)
        return nyb_no_memory(err, "samples", p->count, sizeof(*p->windows));
    choose(p->windows, p->count, p->available, params);
    return NYB_OK;
}

// Splits "FILE:WEIGHT"; a file that has that whole name counts as it is.
static nyb_status split_weight(nyb_arena *arena, part *p, const char *text, nyb_err *err)
{
    const char *const colon = strrchr(text, ':');
    char *end = NULL;
    *p = (part){.path = text, .weight = 1.0};
    if (!colon || colon[1] == '\0' || nyb_path_exists(text))
        return NYB_OK;
    p->weight = strtod(colon + 1, &end);
    if (*end != '\0')
        return NYB_OK; // no weight: a name with a colon
    if (!isfinite(p->weight) || p->weight <= 0.0)
        return nyb_fail(err, NYB_E_ARG, "%s: the weight is not a number above 0", text);
    p->path = nyb_arena_text(arena, text, (size_t) (colon - text));
    return p->path ? NYB_OK : nyb_no_memory(err, text, 1, 1);
}

nyb_status nyb_samples_found(const nyb_samples_params *params, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < params->path_count && status == NYB_OK; i++) {
        part p;
        status = split_weight(&arena, &p, params->paths[i], err);
        if (status == NYB_OK)
            status = nyb_path_readable(p.path, err);
    }
    nyb_arena_clear(&arena);
    return status;
}

// Shares the windows out: each file gets the whole part of what its weight asks for, and those
// that come nearest to one more get the rest.
static nyb_status share(part *parts, size_t count, size_t windows, nyb_err *err)
{
    double total = 0.0;
    size_t given = 0;
    for (size_t i = 0; i < count; i++)
        total += parts[i].weight;
    for (size_t i = 0; i < count; i++) {
        parts[i].wanted = (size_t) ((double) windows * parts[i].weight / total);
        given += parts[i].wanted;
    }
    for (; given < windows; given++) {
        size_t best = 0;
        double most = -1.0;
        for (size_t i = 0; i < count; i++) {
            const double lacking =
                (double) windows * parts[i].weight / total - (double) parts[i].wanted;
            if (lacking > most) {
                most = lacking;
                best = i;
            }
        }
        parts[best].wanted++;
    }
    for (size_t i = 0; i < count; i++)
        if (parts[i].wanted == 0)
            return nyb_fail(err, NYB_E_ARG,
                            "%s: its weight %g gives it none of %zu windows; raise --num-samples",
                            parts[i].path, parts[i].weight, windows);
    return NYB_OK;
}

// Copies a part's window i to a sample's place, which is zeroed. Returns how many tokens count.
static size_t copy_window(const part *p, const nyb_samples_params *params, size_t i, uint32_t *ids,
                          unsigned char *marks)
{
    const nyb_stream *const s = &p->stream;
    size_t start = p->windows[i] * p->step, length = p->length, counted = 0;
    if (by_document(p, params)) {
        length = document_length(s, p->usable[p->windows[i]], &start) + s->begins;
        length = length < params->length ? length : params->length;
    }
    if (s->begins)
        ids[0] = s->bos;
    memcpy(ids + s->begins, s->ids + start, (length - s->begins) * sizeof(*ids));
    for (size_t k = 0; k < length; k++) {
        const bool is_bos = k < s->begins;
        marks[k] = !s->marks || (is_bos ? params->loss_mask == NYB_LOSS_MASK_NONE
                                        : s->marks[start + k - s->begins]);
        counted += marks[k];
    }
    return counted;
}

static nyb_status fill(nyb_samples *out, const part *parts, size_t count,
                       const nyb_samples_params *params, nyb_err *err)
{
    for (size_t i = 0; i < count; i++) {
        out->count += parts[i].count;
        out->available += parts[i].available;
        out->length = parts[i].length > out->length ? parts[i].length : out->length;
        out->begins |= parts[i].stream.begins;
    }
    out->ids = nyb_arena_alloc(&out->arena, out->count * out->length, sizeof(*out->ids));
    out->marks = nyb_arena_alloc(&out->arena, out->count * out->length, 1);
    if (!out->ids || !out->marks)
        return nyb_no_memory(err, "samples", out->count, out->length);
    size_t row = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < parts[i].count; k++, row++)
            out->counted += copy_window(&parts[i], params, k, out->ids + row * out->length,
                                        out->marks + row * out->length);
    if (out->counted == 0)
        return nyb_fail(err, NYB_E_ARG,
                        "no token of the windows is one that the assistant says; "
                        "use --loss-mask none or longer windows");
    if (out->counted == out->count * out->length)
        out->marks = NULL;
    return NYB_OK;
}

static nyb_status open_parts(const nyb_context *ctx, nyb_samples *out, part *parts,
                             const nyb_model *model, const nyb_samples_params *params, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < params->path_count && status == NYB_OK; i++)
        status = split_weight(&out->arena, &parts[i], params->paths[i], err);
    if (status == NYB_OK)
        status = share(parts, params->path_count, params->count, err);
    for (size_t i = 0; i < params->path_count && status == NYB_OK; i++) {
        status = nyb_stream_open_for(&parts[i].stream, model, parts[i].path, params, err);
        if (status == NYB_OK)
            status = measure(ctx, &parts[i], params, err);
    }
    return status == NYB_OK ? fill(out, parts, params->path_count, params, err) : status;
}

nyb_status nyb_samples_open(const nyb_context *ctx, nyb_samples *out, const nyb_model *model,
                            const nyb_samples_params *params, nyb_err *err)
{
    *out = (nyb_samples){.first_weight = params->first_weight ? params->first_weight : 1};
    if (out->first_weight > NYB_FIRST_WEIGHT_MOST)
        return nyb_fail(err, NYB_E_ARG, "the first token's weight is %zu, want at most %d",
                        out->first_weight, NYB_FIRST_WEIGHT_MOST);
    if (params->count == 0 || params->length < 2)
        return nyb_fail(err, NYB_E_ARG,
                        "%zu windows of %zu tokens are asked for, want 1 or more of 2 or more",
                        params->count, params->length);
    if (params->loss_mask == NYB_LOSS_MASK_ASSISTANT && !params->chat)
        return nyb_fail(err, NYB_E_ARG, "--loss-mask assistant needs conversations: give --chat");
    part *const parts = nyb_alloc(params->path_count, sizeof(*parts));
    if (!parts)
        return nyb_no_memory(err, "calibration files", params->path_count, sizeof(*parts));
    nyb_status status = open_parts(ctx, out, parts, model, params, err);
    if (status == NYB_OK && out->marks && nyb_model_config_of(model)->arch->bidirectional &&
        (params->per_document || params->path_count > 1))
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "samples of unequal length are not supported for a model whose tokens "
                          "attend to later ones; use --pack and one file");
    for (size_t i = 0; i < params->path_count; i++)
        nyb_stream_close(&parts[i].stream);
    nyb_free(parts);
    if (status != NYB_OK)
        nyb_samples_close(out);
    return status;
}

void nyb_samples_close(nyb_samples *samples)
{
    nyb_arena_clear(&samples->arena);
    *samples = (nyb_samples){0};
}
