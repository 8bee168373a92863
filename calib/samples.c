#include "calib/samples.h"

#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/random.h"
#include "formats/ids.h"
#include "nybble/tokenizer.h"

enum { TEXT_LIMIT = 1 << 30 };

// Turns CR LF and lone CR into LF, in place; returns how many there were.
static size_t unify_line_ends(char *text, size_t *length)
{
    size_t to = 0, count = 0;
    for (size_t from = 0; from < *length; from++) {
        const bool cr = text[from] == '\r';
        count += cr;
        if (cr && from + 1 < *length && text[from + 1] == '\n')
            continue;
        text[to++] = cr ? '\n' : text[from];
    }
    *length = to;
    return count;
}

static nyb_status encode_file(nyb_stream *out, const nyb_tokenizer *tokenizer, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    nyb_tokens tokens = {0};

    nyb_arena scratch = {0};
    nyb_err inner = {0};
    nyb_status status = nyb_file_read(&scratch, out->path, TEXT_LIMIT, &text, &length, err);
    if (status == NYB_OK) {
        out->line_ends = unify_line_ends(text, &length);
        status = nyb_tokenizer_encode(tokenizer, text, length, false, &tokens, &inner);
        if (status != NYB_OK)
            (void) nyb_fail(err, status, "%s: %s", out->path, inner.text);
    }
    if (status == NYB_OK) {
        out->count = tokens.count;
        out->ids = nyb_arena_alloc(&out->arena, tokens.count, sizeof(*out->ids));
        if (!out->ids)
            status = nyb_no_memory(err, out->path, tokens.count, sizeof(*out->ids));
        else
            memcpy(out->ids, tokens.at, tokens.count * sizeof(*out->ids));
    }
    nyb_tokens_clear(&tokens);
    nyb_arena_clear(&scratch);
    return status;
}

// Whether the tokenizer puts its begin-of-sequence token before a text of its own accord.
static nyb_status begins_by_itself(bool *out, const nyb_tokenizer *tokenizer, uint32_t bos,
                                   nyb_err *err)
{
    nyb_tokens tokens = {0};
    const nyb_status status = nyb_tokenizer_encode(tokenizer, "", 0, true, &tokens, err);
    *out = status == NYB_OK && tokens.count > 0 && tokens.at[0] == bos;
    nyb_tokens_clear(&tokens);
    return status;
}

static nyb_status read_text(nyb_stream *out, const nyb_tokenizer *tokenizer, nyb_bos bos,
                            size_t vocabulary, nyb_err *err)
{
    const int64_t id = nyb_tokenizer_bos(tokenizer);
    if (bos == NYB_BOS_ALWAYS && id < 0)
        return nyb_fail(err, NYB_E_ARG,
                        "the model's tokenizer has no begin-of-sequence token; use --bos never");
    out->begins = bos == NYB_BOS_ALWAYS;
    if (id >= 0) {
        out->bos = (uint32_t) id;
        if (bos == NYB_BOS_AUTO) {
            const nyb_status status = begins_by_itself(&out->begins, tokenizer, out->bos, err);
            if (status != NYB_OK)
                return status;
        }
    }
    const nyb_status status = encode_file(out, tokenizer, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < out->count; i++) {
        if (out->ids[i] >= vocabulary)
            return nyb_fail(err, NYB_E_FORMAT,
                            "%s: the tokenizer gives id %u, the model's vocabulary has %zu",
                            out->path, out->ids[i], vocabulary);
    }
    return NYB_OK;
}

static nyb_status read_ids(nyb_stream *out, size_t vocabulary, nyb_err *err)
{
    nyb_ids ids;
    const nyb_status status = nyb_ids_load(&ids, &out->arena, out->path, vocabulary, err);
    if (status != NYB_OK)
        return status;
    out->ids = ids.at;
    out->count = ids.samples * ids.length;
    out->row_length = ids.stream ? 0 : ids.length;
    return NYB_OK;
}

nyb_status nyb_stream_open(nyb_stream *out, const nyb_model *model, const char *path, nyb_bos bos,
                           nyb_err *err)
{
    const size_t vocabulary = nyb_model_config_of(model)->vocab;
    nyb_tokenizer *tokenizer = NULL;
    nyb_status status;

    *out = (nyb_stream){.path = path};
    if (nyb_ids_named(path)) {
        status = read_ids(out, vocabulary, err);
    } else {
        status = nyb_tokenizer_open(&tokenizer, nyb_model_folder(model), NULL, err);
        if (status == NYB_OK)
            status = read_text(out, tokenizer, bos, vocabulary, err);
        nyb_tokenizer_close(tokenizer);
    }
    if (status != NYB_OK)
        nyb_stream_close(out);
    return status;
}

void nyb_stream_close(nyb_stream *stream)
{
    nyb_arena_clear(&stream->arena);
    *stream = (nyb_stream){0};
}

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

static void copy_window(uint32_t *to, const nyb_stream *s, size_t start, size_t length)
{
    if (s->begins)
        *to++ = s->bos;
    memcpy(to, s->ids + start, (length - s->begins) * sizeof(*to));
}

// The shape of what can be cut: windows of out->length every `step` tokens.
static size_t measure(const nyb_context *ctx, nyb_samples *out, const nyb_stream *s,
                      const nyb_samples_params *params)
{
    const size_t longest = s->row_length ? s->row_length : s->count + s->begins;
    out->length = params->length < longest ? params->length : longest;
    const size_t step = s->row_length ? s->row_length : out->length - s->begins;
    out->available = s->count / step;
    out->count = params->count < out->available ? params->count : out->available;

    if (s->line_ends)
        nyb_log(ctx, NYB_LOG_INFO, "%s: %zu line ends CR LF or CR are read as LF", s->path,
                s->line_ends);
    if (out->length < params->length)
        nyb_log(ctx, NYB_LOG_WARNING, "%s: windows have %zu tokens instead of %zu: %s", s->path,
                out->length, params->length,
                s->row_length ? "its rows are that short" : "the text is that short");
    if (out->count < params->count)
        nyb_log(ctx, NYB_LOG_WARNING,
                "%s: %zu windows of %zu tokens instead of %zu: the text has no more", s->path,
                out->count, out->length, params->count);
    return step;
}

nyb_status nyb_samples_cut(const nyb_context *ctx, nyb_samples *out, nyb_stream *stream,
                           const nyb_samples_params *params, nyb_err *err)
{
    *out = (nyb_samples){0};
    if (params->count == 0 || params->length < 2)
        return nyb_fail(err, NYB_E_ARG,
                        "%zu windows of %zu tokens are asked for, want 1 or more of 2 or more",
                        params->count, params->length);
    if (stream->count < 2 || stream->row_length == 1)
        return nyb_fail(err, NYB_E_SHAPE, "%s: has %zu tokens, want 2 or more", stream->path,
                        stream->row_length ? stream->row_length : stream->count);

    nyb_samples cut = {0};
    const size_t step = measure(ctx, &cut, stream, params);
    cut.ids = nyb_arena_alloc(&stream->arena, cut.count * cut.length, sizeof(*cut.ids));
    size_t *const windows = nyb_arena_alloc(&stream->arena, cut.count, sizeof(*windows));
    if (!cut.ids || !windows)
        return nyb_no_memory(err, "samples", cut.count, cut.length);

    choose(windows, cut.count, cut.available, params);
    for (size_t i = 0; i < cut.count; i++)
        copy_window(cut.ids + i * cut.length, stream, windows[i] * step, cut.length);
    *out = cut;
    return NYB_OK;
}
