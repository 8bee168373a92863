#include "ptq/blocks.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/qweight.h"
#include "core/threads.h"
#include "ptq/tile.h"

enum { BLOCK_BYTES = 512 }; // of any block

const nyb_block_codec *nyb_block_grid(nyb_dtype block)
{
    const nyb_block_codec *const codec = nyb_block_codec_get(block);
    return codec && codec->split ? codec : NULL;
}

bool nyb_block_fit(nyb_block_unit *out, const nyb_block_codec *codec, const float *x,
                   const float *importance)
{
    unsigned char block[BLOCK_BYTES];
    if (importance)
        codec->quantize_weighted(block, x, importance, 1);
    else
        codec->quantize(block, x, 1);
    memset(out->mins, 0, sizeof(out->mins));
    codec->split(out->codes, out->steps, out->mins, block);
    return nyb_blocks_finite(codec, block, 1);
}

nyb_status nyb_block_weight_init(nyb_qweight *out, const nyb_block_codec *codec, size_t rows,
                                 size_t cols, nyb_err *err)
{
    const nyb_qweight parts = {
        .group_size = codec->part, .bits = codec->bits, .symmetric = !codec->minima};
    const nyb_status status = nyb_qweight_init_block(out, rows, cols, codec->dtype, &parts, err);
    if (status != NYB_OK)
        return status;
    memset(out->zeros, codec->zero, rows * out->groups);
    return NYB_OK;
}

typedef struct block_job {
    nyb_mat w;
    const nyb_block_codec *codec;
    nyb_qweight *out;
    nyb_tile_fault *faults;
} block_job;

static void round_row(const block_job *job, size_t row, nyb_tile_fault *fault)
{
    nyb_qweight *const q = job->out;
    const float *const x = nyb_row(job->w, row);
    const size_t unit = nyb_dtype_block(job->codec->dtype).values;
    const size_t parts = unit / job->codec->part;
    for (size_t j = 0; j < q->cols; j++) {
        if (!isfinite(x[j])) {
            *fault = (nyb_tile_fault){NYB_FAULT_WEIGHT, row, j, x[j]};
            return;
        }
    }
    for (size_t j = 0; j < q->cols; j += unit) {
        const size_t group = row * q->groups + j / job->codec->part;
        nyb_block_unit block;
        if (!nyb_block_fit(&block, job->codec, x + j, NULL)) {
            *fault = (nyb_tile_fault){.kind = NYB_FAULT_SCALE, .row = row, .place = j / unit};
            return;
        }
        memcpy(q->codes + row * q->cols + j, block.codes, unit);
        memcpy(q->scales + group, block.steps, parts * sizeof(float));
        if (q->mins)
            memcpy(q->mins + group, block.mins, parts * sizeof(float));
    }
}

static void round_tile(void *arg, size_t tile, unsigned worker)
{
    const block_job *const job = arg;
    (void) worker;
    for (size_t i = 0; i < nyb_tile_rows(job->w.rows, tile); i++) {
        if (job->faults[tile].kind == NYB_FAULT_NONE)
            round_row(job, tile * NYB_LANES + i, &job->faults[tile]);
    }
}

nyb_status nyb_round_blocks(const nyb_context *ctx, nyb_qweight *out, nyb_mat w,
                            const nyb_grid_params *params, nyb_err *err)
{
    const size_t tiles = nyb_tile_count(w.rows);
    block_job job = {.w = w, .codec = nyb_block_grid(params->block), .out = out};
    nyb_status status = nyb_block_weight_init(out, job.codec, w.rows, w.cols, err);
    if (status != NYB_OK)
        return status;
    job.faults = nyb_alloc(tiles, sizeof(*job.faults));
    if (job.faults) {
        nyb_parallel(ctx, tiles, round_tile, &job);
        status = nyb_tile_report(job.faults, tiles, params->scale_dtype, err);
    } else {
        status = nyb_no_memory(err, "tiles of rows", tiles, sizeof(*job.faults));
    }
    nyb_free(job.faults);
    if (status != NYB_OK)
        nyb_qweight_clear(out);
    return status;
}
