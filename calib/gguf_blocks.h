// gguf_blocks.h - layers that are quantised already as blocks of the same numbers.
#ifndef NYB_CALIB_GGUF_BLOCKS_H_
#define NYB_CALIB_GGUF_BLOCKS_H_

#include "core/status.h"
#include "nybble/qweight.h"

// Writes row `row` of q as blocks that dequantise to its very numbers. False, with out undefined,
// when the type cannot hold them.
bool nyb_gguf_blocks_put(void *out, nyb_dtype dtype, const nyb_qweight *q, size_t row);

// NYB_E_UNSUPPORTED with the reason why nyb_gguf_blocks_put() does not take q.
nyb_status nyb_gguf_blocks_refuse(nyb_dtype dtype, const nyb_qweight *q, const char *module,
                                  nyb_err *err);

#endif // NYB_CALIB_GGUF_BLOCKS_H_
