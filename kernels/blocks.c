#include "kernels/blocks.h"

#include <string.h>

#include "core/cpu.h"
#include "kernels/block_levels.h"

const nyb_block_codec *nyb_block_codec_for(nyb_dtype dtype, unsigned cpu)
{
    const nyb_block_codec *table = nyb_block_codecs_portable;
    if (!nyb_dtype_is_block(dtype))
        return NULL;
#ifdef NYB_KERNELS_X86
    if (cpu & NYB_CPU_AVX512)
        table = nyb_block_codecs_avx512;
    else if (cpu & NYB_CPU_AVX2)
        table = nyb_block_codecs_avx2;
#else
    (void) cpu;
#endif
    return &table[dtype - NYB_DTYPE_COUNT];
}

const nyb_block_codec *nyb_block_codec_get(nyb_dtype dtype)
{
    return nyb_block_codec_for(dtype, nyb_cpu());
}

bool nyb_blocks_finite(const nyb_block_codec *codec, const void *blocks, size_t count)
{
    const size_t stride = nyb_dtype_block(codec->dtype).bytes;
    const unsigned char *at = (const unsigned char *) blocks + codec->half_at;
    for (size_t i = 0; i < count; i++, at += stride) {
        for (size_t k = 0; k < codec->halves; k++) {
            uint16_t half;
            memcpy(&half, at + 2 * k, sizeof(half));
            if ((half & 0x7c00) == 0x7c00)
                return false;
        }
    }
    return true;
}
