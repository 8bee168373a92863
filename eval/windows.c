#include "eval/windows.h"

#include <string.h>

enum { BATCH_TOKENS = 32768 };

static nyb_status check(const nyb_eval_params *p, nyb_err *err)
{
    if (!p->path)
        return nyb_fail(err, NYB_E_ARG, "no text to evaluate on: give --text FILE");
    if (p->window < 2)
        return nyb_fail(err, NYB_E_ARG, "window is %zu tokens, want 2 or more", p->window);
    if (p->stride > p->window)
        return nyb_fail(err, NYB_E_ARG, "stride %zu is more than the window of %zu", p->stride,
                        p->window);
    return NYB_OK;
}

// How windows follow each other in the text.
typedef struct spacing {
    size_t begin;   // 1 when a begin token is put in front
    size_t text;    // tokens of text in a full window
    size_t step;    // from one window's start to the next
    size_t overlap; // tokens that the window before has scored already
} spacing;

static spacing space(const nyb_windows *w, const nyb_eval_params *p)
{
    const size_t row = w->stream.row_length, stride = p->stride ? p->stride : p->window;
    spacing s = {.begin = w->stream.begins, .text = p->window - w->stream.begins};
    s.step = stride < s.text ? stride : s.text;
    s.overlap = s.text - s.step;
    if (row) { // ready-made rows are windows as they are, only cut to length
        s.text = s.text < row ? s.text : row;
        s.step = row;
        s.overlap = 0;
    }
    return s;
}

// Lays out all windows and returns the number of their ids; with `at`, also stores them.
static size_t lay_out(nyb_windows *w, const nyb_eval_params *p, nyb_window *at)
{
    const spacing s = space(w, p);
    size_t ids = 0, end = 0;
    w->count = w->scored = 0;
    for (size_t start = 0; end < w->tokens && start < w->tokens; start += s.step) {
        const size_t left = w->tokens - start, text = s.text < left ? s.text : left;
        const size_t first = s.begin + (start > 0 ? s.overlap : 0);
        const nyb_window window = {
            .start = ids, .length = s.begin + text, .first = first > 0 ? first : 1};
        end = start + text;
        if (window.first >= window.length)
            continue; // a lone last token has nothing before it to be predicted from
        if (at) {
            at[w->count] = window;
            if (s.begin)
                w->ids[ids] = w->stream.bos;
            memcpy(w->ids + ids + s.begin, w->stream.ids + start, text * sizeof(*w->ids));
        }
        w->scored += window.length - window.first;
        w->count++;
        ids += window.length;
    }
    return ids;
}

static nyb_status cut(nyb_windows *w, const nyb_eval_params *params, nyb_err *err)
{
    w->tokens = w->stream.count;
    if (params->max_tokens && params->max_tokens < w->tokens)
        w->tokens = params->max_tokens;
    const size_t ids = lay_out(w, params, NULL);
    if (w->scored == 0)
        return nyb_fail(err, NYB_E_SHAPE, "%s: has %zu tokens, too few to score one", params->path,
                        w->tokens);
    w->ids = nyb_arena_alloc(&w->stream.arena, ids, sizeof(*w->ids));
    nyb_window *const at = nyb_arena_alloc(&w->stream.arena, w->count, sizeof(*at));
    if (!w->ids || !at)
        return nyb_no_memory(err, "windows", ids, sizeof(*w->ids));
    (void) lay_out(w, params, at);
    w->at = at;
    return NYB_OK;
}

nyb_status nyb_windows_open(nyb_windows *out, const nyb_model *model, const nyb_eval_params *params,
                            nyb_err *err)
{
    *out = (nyb_windows){0};
    nyb_status status = check(params, err);
    if (status == NYB_OK)
        status = nyb_stream_open(&out->stream, model, params->path, params->bos, err);
    if (status == NYB_OK)
        status = cut(out, params, err);
    if (status != NYB_OK)
        nyb_windows_close(out);
    return status;
}

void nyb_windows_close(nyb_windows *windows)
{
    nyb_stream_close(&windows->stream);
    *windows = (nyb_windows){0};
}

size_t nyb_windows_batch(const nyb_windows *windows, size_t first)
{
    size_t tokens = windows->at[first].length, count = 1;
    while (first + count < windows->count &&
           tokens + windows->at[first + count].length <= BATCH_TOKENS)
        tokens += windows->at[first + count++].length;
    return count;
}
