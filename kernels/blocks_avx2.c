#include "kernels/block_levels.h"
#include "kernels/block_table.h"

const nyb_block_codec nyb_block_codecs_avx2[NYB_BLOCK_TYPES] = BLOCK_CODECS;
