#include "calib/gguf_blocks.h"

#include <string.h>

#include "core/dtype.h"
#include "formats/layout.h"
#include "ptq/blocks.h"

enum { VALUES = 32 };

nyb_dtype nyb_gguf_fitting(nyb_dtype wanted, size_t cols)
{
    if (cols % nyb_dtype_block(wanted).values == 0)
        return wanted;
    nyb_dtype next = NYB_F16;
    if (cols % 32 == 0 && (wanted == NYB_Q2_K || wanted == NYB_Q3_K))
        next = NYB_Q4_0;
    if (cols % 32 == 0 && wanted == NYB_Q4_K)
        next = NYB_Q5_0;
    if (cols % 32 == 0 && wanted == NYB_Q5_K)
        next = NYB_Q5_1;
    if (cols % 32 == 0 && wanted == NYB_Q6_K)
        next = NYB_Q8_0;
    return next;
}

nyb_status nyb_gguf_settle(nyb_settings *s, const nyb_settings *asked, size_t cols,
                           const char *module, nyb_err *err)
{
    const char *const name = nyb_dtype_name(asked->block);
    if (s->method != NYB_METHOD_GPTQ && s->method != NYB_METHOD_RTN)
        return nyb_fail(err, NYB_E_ARG, "'%s': %s is rounded by the methods rtn and gptq only",
                        module, name);
    if (s->bits != asked->bits || s->group_size != asked->group_size ||
        s->symmetric != asked->symmetric || s->scale_search != asked->scale_search)
        return nyb_fail(err, NYB_E_ARG,
                        "'%s': %s has bits, groups and a search of its own: leave them out of the "
                        "recipe",
                        module, name);
    s->block = nyb_gguf_fitting(asked->block, cols);
    const nyb_block_codec *const codec = nyb_block_grid(s->block);
    if (!codec) {
        s->block = NYB_F32;
        s->skip = true;
        return NYB_OK;
    }
    s->refine = 0; // it moves scales, which a block shares
    s->bits = codec->bits;
    s->group_size = codec->part;
    s->symmetric = !codec->minima;
    return NYB_OK;
}

// What keeps q's rows out of the type; NULL: nothing.
static const char *obstacle(nyb_dtype dtype, const nyb_qweight *q)
{
    if (q->block != NYB_F32)
        return q->block == dtype ? NULL : "it is on the grid of another type";
    if (dtype != NYB_Q4_0 && dtype != NYB_Q4_1 && dtype != NYB_Q8_0)
        return "only Q4_0, Q4_1 and Q8_0 hold integer codes with a scale";
    if (q->bits != (dtype == NYB_Q8_0 ? 8 : 4))
        return "its codes have other bits";
    if (dtype != NYB_Q4_1 && !q->symmetric)
        return "it has zero points, which only Q4_1 has room for";
    if (q->irregular)
        return "columns of a group do not lie together";
    if (q->cols % VALUES != 0 || (q->groups > 1 && q->group_size % VALUES != 0))
        return "its groups are no whole blocks of 32 columns";
    return NULL;
}

static bool put_half(unsigned char *at, float value)
{
    const uint16_t half = nyb_f16_of_f32(value);
    memcpy(at, &half, sizeof(half));
    return nyb_f32_of_f16(half) == value;
}

static void put_nibbles(unsigned char *at, const uint8_t *codes)
{
    for (size_t j = 0; j < VALUES / 2; j++)
        at[j] = (unsigned char) (codes[j] | codes[j + VALUES / 2] << 4);
}

// m = -s z has to be a value of f16; then d q + m is s (q - z): q and z are small integers, and s
// has so few digits that no product is rounded.
static bool put_min(unsigned char *at, float scale, unsigned zero)
{
    return put_half(at, -scale * (float) zero) && nyb_f32_of_f16(nyb_f16_of_f32(scale)) == scale;
}

bool nyb_gguf_blocks_put(void *out, nyb_dtype dtype, const nyb_qweight *q, size_t row)
{
    unsigned char *at = out;
    if (obstacle(dtype, q))
        return false;
    if (q->block != NYB_F32)
        return nyb_layout_join_row(out, q, row);
    for (size_t col = 0; col < q->cols; col += VALUES, at += nyb_dtype_block(dtype).bytes) {
        const size_t group = row * q->groups + q->group_of[col];
        const uint8_t *const codes = q->codes + row * q->cols + col;
        bool same = put_half(at, q->scales[group]);
        if (dtype == NYB_Q4_0)
            put_nibbles(at + 2, codes);
        if (dtype == NYB_Q4_1) {
            same = same && put_min(at + 2, q->scales[group], q->zeros[group]);
            put_nibbles(at + 4, codes);
        }
        for (size_t j = 0; dtype == NYB_Q8_0 && j < VALUES; j++)
            at[2 + j] = (unsigned char) (codes[j] ^ 0x80); // code - 128 as int8
        if (!same)
            return false;
    }
    return true;
}

nyb_status nyb_gguf_blocks_refuse(nyb_dtype dtype, const nyb_qweight *q, const char *module,
                                  nyb_err *err)
{
    const char *const reason = obstacle(dtype, q);
    return nyb_fail(err, NYB_E_UNSUPPORTED, "'%s' cannot be %s without loss: %s", module,
                    nyb_dtype_name(dtype),
                    reason              ? reason
                    : dtype == NYB_Q4_1 ? "scale times zero point is no value of f16"
                                        : "a scale is no value of f16");
}
