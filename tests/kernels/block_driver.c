// block_driver.c - block codecs on the command line, for tests that compare them with other
// programs. Not installed.
//
//   block_driver put TYPE < f32 values > blocks
//   block_driver get TYPE < blocks > f32 values
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/blocks.h"

enum { STEP = 1024 }; // blocks at once

static const nyb_block_codec *codec_of(const char *name)
{
    for (int t = NYB_DTYPE_COUNT; t < NYB_DTYPE_END; t++)
        if (strcmp(nyb_dtype_name((nyb_dtype) t), name) == 0)
            return nyb_block_codec_get((nyb_dtype) t);
    return NULL;
}

int main(int argc, char **argv)
{
    const nyb_block_codec *const codec = argc == 3 ? codec_of(argv[2]) : NULL;
    if (!codec)
        return 2;
    const bool put = strcmp(argv[1], "put") == 0;
    if (put && !codec->quantize)
        return 3;
    const nyb_block_size size = nyb_dtype_block(codec->dtype);
    const size_t floats = size.values * sizeof(float);
    const size_t in_bytes = put ? floats : size.bytes, out_bytes = put ? size.bytes : floats;
    void *const in = nyb_alloc(STEP, in_bytes);
    void *const out = nyb_alloc(STEP, out_bytes);
    size_t count = 0;
    while (in && out && (count = fread(in, in_bytes, STEP, stdin)) > 0) {
        if (put)
            codec->quantize(out, in, count);
        else
            codec->dequantize(out, in, count);
        if (fwrite(out, out_bytes, count, stdout) != count)
            return 1;
    }
    nyb_free(in);
    nyb_free(out);
    return 0;
}
