// gguf_blocks.h - layers that are quantised already as blocks of the same numbers.
#ifndef NYB_CALIB_GGUF_BLOCKS_H_
#define NYB_CALIB_GGUF_BLOCKS_H_

#include "core/status.h"
#include "nybble/quantize.h"

// The type for rows of this length: as llama-quantize falls back, but that rows of 32 for Q2_K and
// Q3_K become Q4_0.
nyb_dtype nyb_gguf_fitting(nyb_dtype wanted, size_t cols);

// Settings of a layer that is solved on the grid of s->block: that of its rows' length, and the
// bits and groups that go with it. Rows for which there are no blocks are left as they are.
//
//   s      in: the layer's; out: settled
//   asked  the run's, from which only the method and what concerns the solve may differ
//
// NYB_E_ARG  s has bits, groups or a method of its own that the type does not have.
NYB_NODISCARD nyb_status nyb_gguf_settle(nyb_settings *s, const nyb_settings *asked, size_t cols,
                                         const char *module, nyb_err *err);

// Writes row `row` of q as blocks that dequantise to its very numbers. False, with out undefined,
// when the type cannot hold them.
bool nyb_gguf_blocks_put(void *out, nyb_dtype dtype, const nyb_qweight *q, size_t row);

// NYB_E_UNSUPPORTED with the reason why nyb_gguf_blocks_put() does not take q.
nyb_status nyb_gguf_blocks_refuse(nyb_dtype dtype, const nyb_qweight *q, const char *module,
                                  nyb_err *err);

#endif // NYB_CALIB_GGUF_BLOCKS_H_
