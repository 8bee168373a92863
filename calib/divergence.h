// divergence.h - how far a model's predictions move when some weights of one block change.
#ifndef NYB_CALIB_DIVERGENCE_H_
#define NYB_CALIB_DIVERGENCE_H_

#include "model/forward.h"

typedef struct nyb_divergence {
    const nyb_context *ctx;
    nyb_model *model;
    nyb_batch batch;
    nyb_block_weights weights; // as they lie in the file
    float *starts;             // [blocks, tokens, hidden] the residual stream before each block
    nyb_mat base;              // [tokens, vocabulary] logits of the model as it is
    nyb_mat tile;              // [NYB_DIVERGENCE_ROWS, vocabulary]
    double *rows;              // [NYB_DIVERGENCE_ROWS]
} nyb_divergence;

enum { NYB_DIVERGENCE_ROWS = 64 };

// Runs the model as it is over the ids [samples, length].
//
// NYB_E_NOMEM  no room. Others as nyb_batch_init(), nyb_embed(), nyb_block_weights_load() and
//              nyb_head(). On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_divergence_open(nyb_divergence *out, const nyb_context *ctx,
                                             nyb_model *model, const uint32_t *ids, size_t samples,
                                             size_t length, nyb_err *err);
void nyb_divergence_close(nyb_divergence *d); // zeroed is fine

// The mean over all positions of KL(model || model with these weights of one block), in nats.
NYB_NODISCARD nyb_status nyb_divergence_of(nyb_divergence *d, const nyb_block_weights *changed,
                                           double *out, nyb_err *err);

#endif // NYB_CALIB_DIVERGENCE_H_
