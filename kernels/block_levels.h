// block_levels.h - the compiled levels of block_loops.h, for the dispatch in blocks.c.
#ifndef NYB_KERNELS_BLOCK_LEVELS_H_
#define NYB_KERNELS_BLOCK_LEVELS_H_

#include "kernels/blocks.h"

enum { NYB_BLOCK_TYPES = NYB_DTYPE_END - NYB_DTYPE_COUNT };

// Indexed by dtype - NYB_DTYPE_COUNT.
extern const nyb_block_codec nyb_block_codecs_portable[NYB_BLOCK_TYPES],
    nyb_block_codecs_avx2[NYB_BLOCK_TYPES], nyb_block_codecs_avx512[NYB_BLOCK_TYPES];

#endif // NYB_KERNELS_BLOCK_LEVELS_H_
