#include "calib/gguf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "calib/gguf_blocks.h"
#include "calib/gguf_plan.h"
#include "core/clock.h"
#include "core/dtype.h"
#include "core/file.h"
#include "core/log.h"
#include "core/row_order.h"
#include "core/threads.h"
#include "kernels/blocks.h"
#include "model/binding.h"

enum { TILE_BYTES = 1 << 18, STRIP = 16 }; // of the file, at least one row; rows at a time

// Rows [row0, row0 + rows) of an item's slice: one task.
typedef struct tile {
    const nyb_gguf_item *item;
    size_t slice, row0, rows;
} tile;

// One thread's memory and the first fault that it met.
typedef struct bench {
    float *rows; // [STRIP, cols]
    unsigned char *out;
    size_t fault_at; // tile, SIZE_MAX: none
    nyb_status status;
    nyb_err err;
} bench;

typedef struct job {
    const nyb_gguf_plan *plan;
    const char *path;
    int fd;
    tile *tiles;
    size_t count;
    bench *benches;           // [threads]
    const nyb_qweight *codes; // of the quantised linear that is being written
} job;

static nyb_status write_at(const job *j, const void *at, size_t bytes, size_t offset, nyb_err *err)
{
    const unsigned char *from = at;
    while (bytes > 0) {
        const ssize_t wrote = pwrite(j->fd, from, bytes, (off_t) offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return nyb_fail(err, NYB_E_IO, "%s: cannot write it: %s", j->path, strerror(errno));
        from += wrote;
        bytes -= (size_t) wrote;
        offset += (size_t) wrote;
    }
    return NYB_OK;
}

// ---- Rows -----------------------------------------------------------------------------------

static nyb_status too_large(const nyb_gguf_item *item, nyb_err *err)
{
    return nyb_fail(err, NYB_E_NUMERIC, "tensor '%s' has weights too large for %s",
                    item->folder_name, nyb_dtype_name(item->dtype));
}

static nyb_status encode(void *out, const nyb_gguf_item *item, size_t slice, const float *row,
                         nyb_err *err)
{
    const nyb_block_codec *const codec = nyb_block_codec_get(item->dtype);
    if (codec) {
        const size_t blocks = item->cols / nyb_dtype_block(item->dtype).values;
        if (item->importance)
            codec->quantize_weighted(out, row, item->importance + slice * item->cols, blocks);
        else
            codec->quantize(out, row, blocks);
        return nyb_blocks_finite(codec, out, blocks) ? NYB_OK : too_large(item, err);
    }
    nyb_narrow(out, item->dtype, row, item->cols);
    for (size_t j = 0; item->dtype == NYB_F16 && j < item->cols; j++) {
        uint16_t half;
        memcpy(&half, (const unsigned char *) out + 2 * j, sizeof(half));
        if ((half & 0x7c00) == 0x7c00)
            return too_large(item, err);
    }
    return NYB_OK;
}

static bool is_copy(const nyb_gguf_item *item, const nyb_tensor *source)
{
    return source && nyb_dtype_is_block(item->dtype) && source->dtype == item->dtype &&
           nyb_row_order_same(&source->order, &item->order);
}

// Row `at` of a slice as floats, or straight into its place in the file (*done).
static nyb_status read_row(float *row, void *out, bool *done, const job *j, const tile *t,
                           size_t at, nyb_err *err)
{
    const nyb_gguf_item *const item = t->item;
    const nyb_tensor *const source = item->slices[t->slice].source;
    const size_t from = nyb_row_named(&item->order, at);
    *done = true;
    if (is_copy(item, source)) {
        memcpy(out, (const unsigned char *) source->at + at * item->row_bytes, item->row_bytes);
        return NYB_OK;
    }
    if (j->codes && nyb_gguf_blocks_put(out, item->dtype, j->codes, from))
        return NYB_OK;
    if (j->codes && j->plan->params->exact)
        return nyb_gguf_blocks_refuse(item->dtype, j->codes, item->slices[t->slice].linear->module,
                                      err);
    *done = false;
    if (j->codes)
        nyb_qweight_dequantize(j->codes, from, nyb_mat_of(row, 1, item->cols));
    else if (item->values)
        memcpy(row, item->values, item->cols * sizeof(*row));
    else
        return nyb_tensor_widen(source, from, nyb_mat_of(row, 1, item->cols), err);
    return NYB_OK;
}

// Rows [row, row + count) of the tile, at most STRIP: a layer that is stored [in, out] is read many
// rows at a time.
static nyb_status make_rows(unsigned char *out, const job *j, const tile *t, size_t row,
                            size_t count, float *floats, nyb_err *err)
{
    const nyb_gguf_item *const item = t->item;
    const nyb_linear *const linear = item->slices[t->slice].linear;
    const bool turned = linear && linear->weight && linear->transposed;
    nyb_status status = NYB_OK;
    if (turned)
        status =
            nyb_linear_widen(linear, t->row0 + row, nyb_mat_of(floats, count, item->cols), err);
    for (size_t i = 0; i < count && status == NYB_OK; i++) {
        float *const x = floats + i * item->cols;
        unsigned char *const to = out + i * item->row_bytes;
        bool done = false;
        if (!turned)
            status = read_row(x, to, &done, j, t, t->row0 + row + i, err);
        for (size_t k = 0; item->added != 0.0f && !done && k < item->cols; k++)
            x[k] += item->added;
        if (status == NYB_OK && !done)
            status = encode(to, item, t->slice, x, err);
    }
    return status;
}

static void run_tile(void *arg, size_t index, unsigned worker)
{
    job *const j = arg;
    const tile *const t = &j->tiles[index];
    const nyb_gguf_item *const item = t->item;
    bench *const b = &j->benches[worker];
    nyb_status status = NYB_OK;
    nyb_err err;
    for (size_t i = 0; i < t->rows && status == NYB_OK; i += STRIP)
        status = make_rows(b->out + i * item->row_bytes, j, t, i,
                           t->rows - i < STRIP ? t->rows - i : STRIP, b->rows, &err);
    if (status == NYB_OK)
        status = write_at(j, b->out, t->rows * item->row_bytes,
                          item->offset + (t->slice * item->slice_rows + t->row0) * item->row_bytes,
                          &err);
    if (status != NYB_OK && index < b->fault_at) {
        b->fault_at = index;
        b->status = status;
        b->err = err;
    }
}

// ---- Tiles ----------------------------------------------------------------------------------

static size_t tile_rows(const nyb_gguf_item *item)
{
    const size_t rows = item->row_bytes ? TILE_BYTES / item->row_bytes : 1;
    return rows ? rows : 1;
}

static void cut(job *j, const nyb_gguf_item *item, size_t slice)
{
    const size_t step = tile_rows(item), rows = item->slice_rows;
    for (size_t row = 0; row < rows; row += step)
        j->tiles[j->count++] = (tile){item, slice, row, rows - row < step ? rows - row : step};
}

static bool is_packed(const nyb_gguf_item *item, size_t slice)
{
    return item->slices[slice].linear && item->slices[slice].linear->quantized;
}

// Runs the tiles that were cut; the fault of the first one counts.
static nyb_status run(const nyb_context *ctx, job *j, nyb_err *err)
{
    const bench *first = NULL;
    const unsigned threads = nyb_threads(ctx);
    for (unsigned i = 0; i < threads; i++)
        j->benches[i].fault_at = SIZE_MAX;
    nyb_parallel(ctx, j->count, run_tile, j);
    j->count = 0;
    for (unsigned i = 0; i < threads; i++) {
        const bench *const b = &j->benches[i];
        if (b->fault_at != SIZE_MAX && (!first || b->fault_at < first->fault_at))
            first = b;
    }
    return first ? nyb_fail(err, first->status, "%s", first->err.text) : NYB_OK;
}

// Layers that are quantised already, one after the other: each is unpacked as a whole.
static nyb_status run_packed(const nyb_context *ctx, job *j, const nyb_gguf_item *item,
                             size_t slice, nyb_err *err)
{
    const nyb_model *const m = j->plan->model;
    nyb_qweight q;
    nyb_status status = nyb_quantization_read(
        &q, nyb_model_quantization(m), nyb_model_checkpoint(m), item->slices[slice].linear->module,
        item->slice_rows, item->cols, err);
    if (status != NYB_OK)
        return status;
    j->codes = &q;
    cut(j, item, slice);
    status = run(ctx, j, err);
    j->codes = NULL;
    nyb_qweight_clear(&q);
    return status;
}

static nyb_status reserve_memory(const nyb_context *ctx, job *j, nyb_arena *arena, nyb_err *err)
{
    const unsigned threads = nyb_threads(ctx);
    size_t tiles = 0, cols = 1, out = 1;
    for (size_t i = 0; i < j->plan->count; i++) {
        const nyb_gguf_item *const item = &j->plan->items[i];
        const size_t rows = tile_rows(item);
        tiles += item->slice_count * ((item->slice_rows + rows - 1) / rows);
        cols = item->cols > cols ? item->cols : cols;
        out = rows * item->row_bytes > out ? rows * item->row_bytes : out;
    }
    j->tiles = nyb_arena_alloc(arena, tiles, sizeof(*j->tiles));
    j->benches = nyb_arena_alloc(arena, threads, sizeof(*j->benches));
    bool good = j->tiles && j->benches;
    for (unsigned i = 0; i < threads && good; i++) {
        j->benches[i].rows = nyb_arena_alloc(arena, cols, STRIP * sizeof(float));
        j->benches[i].out = nyb_arena_alloc(arena, out, 1);
        good = j->benches[i].rows && j->benches[i].out;
    }
    return good ? NYB_OK : nyb_no_memory(err, "rows", threads, cols * sizeof(float) + out);
}

static nyb_status fill(const nyb_context *ctx, job *j, nyb_err *err)
{
    const nyb_gguf_plan *const p = j->plan;
    nyb_status status = write_at(j, p->head.at, p->head.length, 0, err);
    for (size_t i = 0; i < p->count; i++) {
        for (size_t k = 0; k < p->items[i].slice_count; k++) {
            if (!is_packed(&p->items[i], k))
                cut(j, &p->items[i], k);
        }
    }
    if (status == NYB_OK)
        status = run(ctx, j, err);
    for (size_t i = 0; i < p->count && status == NYB_OK; i++) {
        for (size_t k = 0; k < p->items[i].slice_count && status == NYB_OK; k++) {
            if (is_packed(&p->items[i], k))
                status = run_packed(ctx, j, &p->items[i], k, err);
        }
    }
    if (status == NYB_OK && fsync(j->fd) != 0)
        status =
            nyb_fail(err, NYB_E_IO, "%s: cannot sync it to disk: %s", j->path, strerror(errno));
    return status;
}

// The file has its length from the start: a full disk is found before the work.
static nyb_status make_file(const nyb_context *ctx, const nyb_gguf_plan *plan, const char *path,
                            nyb_err *err)
{
    nyb_arena arena = {0};
    job j = {.plan = plan, .path = path};
    j.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (j.fd < 0)
        return nyb_fail(err, NYB_E_IO, "%s: cannot create it: %s", path, strerror(errno));
    int code = posix_fallocate(j.fd, 0, (off_t) plan->bytes);
    if (code == EOPNOTSUPP || code == EINVAL)
        code = ftruncate(j.fd, (off_t) plan->bytes) == 0 ? 0 : errno;
    nyb_status status = NYB_OK;
    if (code != 0)
        status = nyb_fail(err, NYB_E_IO, "%s: cannot reserve %zu bytes: %s", path, plan->bytes,
                          strerror(code));
    if (status == NYB_OK)
        status = reserve_memory(ctx, &j, &arena, err);
    if (status == NYB_OK)
        status = fill(ctx, &j, err);
    nyb_arena_clear(&arena);
    if (close(j.fd) != 0 && status == NYB_OK)
        status = nyb_fail(err, NYB_E_IO, "%s: cannot close it: %s", path, strerror(errno));
    return status;
}

// ---- The report -----------------------------------------------------------------------------

static json_t *report_of(const nyb_gguf_plan *p, const nyb_quantize_result *r)
{
    json_t *const tensors = json_array(), *const fallbacks = json_array();
    for (size_t i = 0; i < p->count; i++) {
        const nyb_gguf_item *const item = &p->items[i];
        json_array_append_new(
            tensors, json_pack("{s:s, s:s, s:I, s:I, s:b, s:b}", "name", item->name, "type",
                               nyb_dtype_name(item->dtype), "rows", (json_int_t) item->rows, "cols",
                               (json_int_t) item->cols, "packed_before", is_packed(item, 0),
                               "weighed", item->importance != NULL));
        if (item->dtype != item->asked)
            json_array_append_new(fallbacks, json_pack("{s:s, s:s, s:s}", "tensor", item->name,
                                                       "asked", nyb_dtype_name(item->asked), "used",
                                                       nyb_dtype_name(item->dtype)));
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:f, s:o, s:o, s:O?}", "schema", "nybble.gguf/1", "type",
                     nyb_dtype_name(p->params->dtype), "bytes_in", (json_int_t) r->bytes_in,
                     "bytes_out", (json_int_t) r->bytes_out, "bits_per_weight", r->bits_per_weight,
                     "tensors", tensors, "fallbacks", fallbacks, "solve", p->params->report);
}

static void sum_up(const nyb_context *ctx, const nyb_gguf_plan *p, nyb_quantize_result *r)
{
    const nyb_checkpoint *const source = nyb_model_checkpoint(p->model);
    double bits = 0.0, weights = 0.0;
    for (size_t i = 0; i < p->count; i++) {
        const nyb_gguf_item *const item = &p->items[i];
        if (item->dtype != item->asked)
            nyb_log(ctx, NYB_LOG_WARNING, "'%s': rows of %zu are no whole blocks of %s: it is %s",
                    item->name, item->cols, nyb_dtype_name(item->asked),
                    nyb_dtype_name(item->dtype));
        if (item->rank < 2 || strncmp(item->name, "blk.", 4) != 0)
            continue;
        r->layers++;
        bits += 8.0 * (double) (item->rows * item->row_bytes);
        weights += (double) (item->rows * item->cols);
    }
    r->bits_per_weight = weights > 0.0 ? bits / weights : 0.0;
    r->bytes_out = p->bytes;
    for (size_t i = 0; i < nyb_checkpoint_files(source); i++) {
        size_t bytes = 0;
        (void) nyb_checkpoint_file_bytes(source, i, &bytes);
        r->bytes_in += bytes;
    }
}

static nyb_status put_in_place(const nyb_gguf_plan *p, const char *partial, const char *report_path,
                               const nyb_quantize_result *r, nyb_err *err)
{
    json_t *const report = report_of(p, r);
    nyb_status status =
        report ? nyb_json_save(report, report_path, err) : nyb_no_memory(err, "report", 1, 1);
    json_decref(report);
    return status == NYB_OK ? nyb_rename(partial, p->params->out, err) : status;
}

nyb_status nyb_gguf_file_write(const nyb_context *ctx, const nyb_gguf_params *params,
                               nyb_quantize_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    nyb_gguf_plan plan;
    nyb_quantize_result r = {0};
    if (nyb_path_exists(params->out) && (!params->force || !nyb_gguf_named(params->out)))
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists%s", params->out,
                        params->force ? " and is no GGUF file" : "; use --force to replace it");
    nyb_status status = nyb_gguf_plan_open(&plan, params, err);
    if (status != NYB_OK)
        return status;
    const char *const partial = nyb_arena_format(&plan.arena, "%s.partial", params->out);
    const char *const report = nyb_arena_format(&plan.arena, "%s.report.json", params->out);
    status = partial && report ? make_file(ctx, &plan, partial, err)
                               : nyb_no_memory(err, "path", strlen(params->out), 2);
    if (status == NYB_OK) {
        sum_up(ctx, &plan, &r);
        status = put_in_place(&plan, partial, report, &r, err);
    }
    if (status != NYB_OK && partial)
        (void) unlink(partial);
    nyb_gguf_plan_close(&plan);
    r.seconds = nyb_seconds() - start;
    if (status == NYB_OK && result)
        *result = r;
    return status;
}
