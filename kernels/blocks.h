// blocks.h - ggml's block types: rows of f32 to the blocks of a GGUF file and back.
//
// Layouts: FORMATS of ggml (docs/gguf.md there); docs/formats.md has them as a table. Rounding
// without weights of importance, as ggml's reference functions round. The same C source is
// compiled for each instruction set without fused operations, so every level gives the same bits.
#ifndef NYB_KERNELS_BLOCKS_H_
#define NYB_KERNELS_BLOCKS_H_

#include "nybble/tensor.h"

typedef struct nyb_block_codec {
    nyb_dtype dtype;
    // Where a block keeps its f16 scales, and how many: what overflows for huge values. MXFP4 has
    // none.
    size_t half_at, halves;

    // count blocks at `blocks`, which may be misaligned, into out.
    void (*dequantize)(float *out, const void *blocks, size_t count);

    // The values of count blocks, all finite, into blocks. NULL: the type is only read. Values so
    // large that a scale exceeds f16 leave an infinite scale behind.
    void (*quantize)(void *blocks, const float *x, size_t count);

    // The same with the square of each value's error weighed by its importance, which is finite
    // and not negative: a row of count blocks, as ggml rounds with an importance matrix.
    void (*quantize_weighted)(void *blocks, const float *x, const float *importance, size_t count);

    // One block apart: value i is steps[p] (codes[i] - zero) - mins[p] with p = i / part, computed
    // in f32. The types without minima leave mins alone. NULL: the type is only read.
    void (*split)(uint8_t *codes, float *steps, float *mins, const void *block);

    // The opposite. False: no block has these steps and minima.
    bool (*join)(void *block, const uint8_t *codes, const float *steps, const float *mins);

    size_t part;   // values that share a step
    unsigned bits; // of a code
    uint8_t zero;
    bool minima;
} nyb_block_codec;

enum { NYB_BLOCK_PARTS = 16, NYB_BLOCK_VALUES = 256 }; // at most, of one block

// The codec of a block type for a CPU with these features (core/cpu.h). NULL for other types.
const nyb_block_codec *nyb_block_codec_for(nyb_dtype dtype, unsigned cpu);

// The one for this machine.
const nyb_block_codec *nyb_block_codec_get(nyb_dtype dtype);

// Whether every scale of count blocks is finite.
bool nyb_blocks_finite(const nyb_block_codec *codec, const void *blocks, size_t count);

#endif // NYB_KERNELS_BLOCKS_H_
