#define _GNU_SOURCE // O_TMPFILE
#include "calib/activations.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/file.h"

enum { ROWS_A_CALL = 512 }; // rows that are read or written at once

size_t nyb_activations_unit(size_t length)
{
    return length < NYB_UNIT_TOKENS ? NYB_UNIT_TOKENS / length : 1;
}

size_t nyb_activations_memory(const nyb_context *ctx, const nyb_model *model, size_t chunk_samples,
                              size_t length, nyb_dtype operands)
{
    return nyb_batch_kept_bytes(ctx, model, chunk_samples, length, operands);
}

// The widest outputs that have to be kept between two steps.
static size_t widest_kept(const nyb_model *model, nyb_dtype operands)
{
    size_t widest = 0;
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t s = 0; s < nyb_stage_count(model, b); s++) {
            const size_t wide = nyb_stage_flow_of(model, operands, b, s).wide_out;
            widest = wide > widest ? wide : widest;
        }
    }
    return widest;
}

size_t nyb_activations_spill(const nyb_model *model, size_t chunk_samples, size_t samples,
                             size_t length, nyb_dtype operands)
{
    const size_t cols = nyb_model_config_of(model)->hidden + widest_kept(model, operands);
    return chunk_samples < samples ? samples * length * cols * sizeof(float) : 0;
}

size_t nyb_activations_fit(const nyb_context *ctx, const nyb_model *model, size_t samples,
                           size_t length, nyb_dtype operands, size_t bytes)
{
    const size_t unit = nyb_activations_unit(length);
    if (samples <= unit || bytes == 0 ||
        nyb_activations_memory(ctx, model, samples, length, operands) <= bytes)
        return samples;
    size_t low = 1, high = (samples + unit - 1) / unit; // in units; `high` does not fit
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (nyb_activations_memory(ctx, model, middle * unit, length, operands) <= bytes)
            low = middle;
        else
            high = middle;
    }
    return low * unit;
}

static nyb_status fault(const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_IO,
                    "cannot %s the file that holds activations: %s; raise --memory, or free disk "
                    "space beside the output",
                    what, strerror(errno));
}

static nyb_status open_file(nyb_activations *a, const char *folder, nyb_err *err)
{
    a->file = nyb_file_nameless(folder);
    if (a->file < 0)
        return fault("make", err);
    const nyb_dtype operands = a->batch.operands;
    a->wide_cols = widest_kept(a->batch.model, operands);
    const size_t bytes =
        nyb_activations_spill(a->batch.model, a->chunk_samples, a->samples, a->length, operands);
    int code = EINTR;
    while (code == EINTR)
        code = posix_fallocate(a->file, 0, (off_t) bytes);
    if (code == 0 || code == EOPNOTSUPP || code == EINVAL)
        return NYB_OK;
    errno = code;
    return fault("reserve", err);
}

nyb_status nyb_activations_open(nyb_activations *out, const nyb_context *ctx,
                                const nyb_model *model, const nyb_activations_params *params,
                                nyb_err *err)
{
    const size_t chunk = params->chunk_samples;
    *out = (nyb_activations){.samples = params->samples,
                             .length = params->length,
                             .chunk_samples = chunk,
                             .chunks = (params->samples + chunk - 1) / chunk,
                             .file = -1};
    nyb_status status =
        nyb_batch_init_kept(&out->batch, ctx, model, chunk, params->length, params->operands, err);
    if (status == NYB_OK && out->chunks > 1)
        status = open_file(out, params->folder, err);
    if (status != NYB_OK)
        nyb_activations_close(out);
    return status;
}

void nyb_activations_close(nyb_activations *a)
{
    if (a->chunks > 1 && a->file >= 0)
        (void) close(a->file);
    nyb_batch_clear(&a->batch);
    *a = (nyb_activations){.file = -1};
}

// ---- Between the batch and the file ---------------------------------------------------------

typedef ssize_t move_call(int file, const struct iovec *rows, int count, off_t offset);

// Moves all of the rows, whatever part of them a call manages.
static nyb_status move_all(move_call *move, int file, struct iovec *rows, size_t count,
                           size_t offset, nyb_err *err)
{
    while (count > 0) {
        const ssize_t moved = move(file, rows, (int) count, (off_t) offset);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved == 0)
            errno = EIO;
        if (moved <= 0)
            return fault(move == pwritev ? "write" : "read", err);
        size_t left = (size_t) moved;
        offset += left;
        while (count > 0 && left >= rows->iov_len) {
            left -= rows->iov_len;
            rows++;
            count--;
        }
        if (count > 0) {
            rows->iov_base = (char *) rows->iov_base + left;
            rows->iov_len -= left;
        }
    }
    return NYB_OK;
}

// The first `cols` columns of all rows of a chunk's matrix, in one piece of the file.
static nyb_status move_matrix(move_call *move, int file, nyb_mat m, size_t cols, size_t offset,
                              nyb_err *err)
{
    struct iovec rows[ROWS_A_CALL];
    nyb_status status = NYB_OK;
    for (size_t r0 = 0; status == NYB_OK && r0 < m.rows; r0 += ROWS_A_CALL) {
        const size_t some = m.rows - r0 < ROWS_A_CALL ? m.rows - r0 : ROWS_A_CALL;
        for (size_t i = 0; i < some; i++)
            rows[i] =
                (struct iovec){.iov_base = nyb_row(m, r0 + i), .iov_len = cols * sizeof(float)};
        status = move_all(move, file, rows, some, offset, err);
        offset += some * cols * sizeof(float);
    }
    return status;
}

static nyb_status move_parts(move_call *move, const nyb_activations *a, nyb_activation_part part,
                             nyb_err *err)
{
    const size_t hidden = a->batch.x.cols, tokens = a->batch.tokens;
    const size_t first = a->chunk * a->chunk_samples * a->length; // token
    const size_t start = first * (hidden + a->wide_cols) * sizeof(float);
    nyb_status status = NYB_OK;
    if (a->file < 0)
        return NYB_OK;
    if (part.x)
        status = move_matrix(move, a->file, nyb_block(a->batch.x, 0, tokens, 0, hidden), hidden,
                             start, err);
    if (status == NYB_OK && part.wide)
        status = move_matrix(move, a->file, nyb_block(a->batch.wide, 0, tokens, 0, part.wide),
                             part.wide, start + tokens * hidden * sizeof(float), err);
    return status;
}

nyb_status nyb_activations_load(nyb_activations *a, size_t chunk, nyb_activation_part part,
                                nyb_err *err)
{
    const size_t left = a->samples - chunk * a->chunk_samples;
    a->chunk = chunk;
    nyb_batch_use(&a->batch, left < a->chunk_samples ? left : a->chunk_samples);
    return move_parts(preadv, a, part, err);
}

nyb_status nyb_activations_save(const nyb_activations *a, nyb_activation_part part, nyb_err *err)
{
    return move_parts(pwritev, a, part, err);
}
