// rounding.h - the inputs of quantised layers rounded as they are where products are made of 8-bit
// numbers, so that what such a machine computes is known without it.
#ifndef NYB_MODEL_ROUNDING_H_
#define NYB_MODEL_ROUNDING_H_

#include "kernels/weight.h"
#include "model/forward.h"
#include "nybble/activations.h"

// Scratch of a batch's workers, and a magnitude for each token.
typedef struct nyb_rounding {
    nyb_activation_kind kind;
    size_t tile, width;     // tokens and columns of a worker's input, at most
    size_t codes_bytes;     // of a worker's input laid out for a weight
    size_t packed_words;    // of a worker's input packed for products of floats
    size_t stride;          // bytes of a worker
    unsigned char *workers; // [workers, stride]
    float *most;            // [tokens] of the stage that runs: the largest magnitude that counts
} nyb_rounding;

// Room for a batch of this many tokens.
//
// NYB_E_UNSUPPORTED  a layer's weights or their number of columns are not made for such inputs.
// NYB_E_NOMEM        no room. On both out is zeroed.
NYB_NODISCARD nyb_status nyb_rounding_init(nyb_rounding *out, const nyb_context *ctx,
                                           const nyb_model *model, nyb_activation_kind kind,
                                           size_t tokens, nyb_err *err);
void nyb_rounding_clear(nyb_rounding *rounding); // zeroed is fine

bool nyb_rounding_is_int8(const nyb_rounding *rounding);

// Whether each token has a scale of its own.
bool nyb_rounding_is_per_token(const nyb_rounding *rounding);

// Whether products with this layer are made of rounded inputs.
bool nyb_rounding_applies(const nyb_rounding *rounding, const nyb_linear *linear);

// One product of a tile of tokens with rows of a layer.
typedef struct nyb_rounded_product {
    const nyb_linear *linear;
    const nyb_weight *weight;
    nyb_mat in;        // [tokens, cols]
    const float *most; // [tokens] of nyb_rounding.most
    size_t row0;       // of the weight
    bool keep;         // add to what is there
} nyb_rounded_product;

// out [tokens, rows] = in' W'^T for int8; in' is in, rounded, and W' the rows from row0 on.
void nyb_rounded_multiply(const nyb_rounding *rounding, unsigned worker, nyb_mat out,
                          const nyb_rounded_product *product);

// For float8: in', packed for products of floats. Lives until the worker's next call.
const uint32_t *nyb_rounded_pack(const nyb_rounding *rounding, unsigned worker,
                                 const nyb_gemm *gemm, const nyb_rounded_product *product);

// The largest magnitude of n values, which what is rounded is relative to; NaN when one is not
// finite.
float nyb_rounding_largest(const float *x, size_t n);

#endif // NYB_MODEL_ROUNDING_H_
