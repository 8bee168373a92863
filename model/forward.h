// forward.h - running a model over a batch of token sequences, block by block and stage by stage,
// so that a caller can look at (and change) what stands between two stages.
//
//     nyb_batch_init(&batch, ctx, model, starts, samples, NULL, &err);
//     nyb_embed(ctx, model, &batch, ids, &err);
//     for each block b:
//         nyb_block_weights_load(ctx, &weights, b, &err);
//         for each stage s:
//             nyb_stage_input(&batch, &weights, s, token0, tile);   // for the Hessian
//             ... overwrite weights.weights[linear] ...
//             nyb_stage_run(ctx, &weights, s, &batch);
//     nyb_head(ctx, model, &batch, token0, logits, &err);
//
// Work is cut into tiles by shape alone, so the bits do not depend on the number of threads. They
// may depend on how sequences are put together into batches.
#ifndef NYB_MODEL_FORWARD_H_
#define NYB_MODEL_FORWARD_H_

#include "kernels/gemm.h"
#include "model/model.h"

// Keys and values of the positions so far of one sequence, for generation.
typedef struct nyb_cache {
    size_t capacity; // positions
    size_t used;     // positions that are filled, the same for every block
    size_t key_width, value_width;
    float *memory; // [blocks] of keys [capacity, key_width], values [capacity, value_width]
} nyb_cache;

// Queries of one sample that attend together.
typedef struct nyb_span {
    size_t start, end; // the sample's tokens
    size_t first;      // first query's token
    size_t count;
} nyb_span;

// Which tokens a block's router sent to which expert.
typedef struct nyb_routes {
    nyb_mat weights;  // [tokens, experts] of the expert's output; with a minus: not sent there
    uint32_t *tokens; // those of one expert after those of the other, each rising
    size_t *starts;   // [experts + 1] into tokens
    bool all;         // every expert reads all tokens, for calibration; weights still hold
} nyb_routes;

// Allocates a cache for `capacity` positions.
//
// NYB_E_NOMEM  out is zeroed.
NYB_NODISCARD nyb_status nyb_cache_init(nyb_cache *out, const nyb_model *model, size_t capacity,
                                        nyb_err *err);
void nyb_cache_clear(nyb_cache *cache); // zeroed is fine

// Token sequences that go through the model together. x and wide are what a walk keeps:
// 4 * tokens * (hidden + wide.stride) bytes.
typedef struct nyb_batch {
    const nyb_model *model;
    size_t samples, tokens; // at hand: the first of those that there is room for
    size_t *starts;         // [samples + 1] sample i is tokens [starts[i], starts[i + 1])
    uint32_t *position;     // [tokens] of each token in its sample
    nyb_span *spans;        // of all samples
    size_t span_count;
    size_t sample_room, span_room; // what it was made for
    nyb_mat x;                     // [tokens, hidden] the residual stream
    nyb_mat wide;                  // [tokens, *] outputs of the last stage that did not go into x
    // NYB_BF16: those that the next stage only multiplies are kept as the bf16 that products would
    // round them to, from the beginning of their row of wide; NYB_F32: in their columns, as they are
    nyb_dtype operands;
    nyb_mat start;       // columns of wide: x at the block's beginning, where it is asked
    nyb_mat routed, sum; // likewise: the experts' input, and their summed outputs
    nyb_routes routes;
    size_t longest;               // positions that the ropes are made for
    float *ropes[NYB_ROPES];      // [longest, dims] half cosines, half sines, of each position
    nyb_mat narrow_in, narrow_up; // for stages of few rows: input and side output
    nyb_mat narrow_out;           // likewise: an output that is not added as it is
    unsigned workers;
    const nyb_gemm *gemm;     // how products of more than a few tokens are made
    uint32_t *packed_weights; // of the stage that runs
    uint32_t *packed_in;      // [workers, packed_stride] of a tile of tokens
    size_t packed_stride;
    nyb_mat scratch;                     // [workers, *]
    nyb_mat panels;                      // [workers, *] for nyb_weight_multiply()
    nyb_cache *cache;                    // NULL: none. Positions start at cache->used
    const struct nyb_rounding *rounding; // of quantised layers' inputs; NULL: none
    void *memory;                        // behind all the pointers above
} nyb_batch;

// In what form a batch may keep what the next stage only multiplies, so that nothing but
// nyb_stage_input() and the memory that it takes can tell: bf16 where products are made of bf16. Routers
// send some experts so few tokens that their products are of f32, so a model that has any keeps
// f32.
nyb_dtype nyb_batch_operands(const nyb_context *ctx, const nyb_model *model);

// Bytes that nyb_batch_init() allocates for this many tokens in samples of at most `longest`.
// SIZE_MAX when they cannot be counted.
size_t nyb_batch_bytes(const nyb_context *ctx, const nyb_model *model, size_t samples,
                       size_t tokens, size_t longest);

// Sizes everything that the walk needs; nothing below allocates.
//
//   ctx     the number of threads of every later call is at most that of this one; its compute
//           says what products are made of, except those of a few tokens, which are f32
//   starts  [samples + 1], starts[0] = 0, rising: each sample has a token or more; copied
//
// NYB_E_ARG    starts is not as said, or a sample is longer than the model has positions.
// NYB_E_NOMEM  no room. On both *out is zeroed.
NYB_NODISCARD nyb_status nyb_batch_init(nyb_batch *out, const nyb_context *ctx,
                                        const nyb_model *model, const size_t *starts,
                                        size_t samples, nyb_err *err);

// As nyb_batch_init() for a batch whose `rounding` will be set (model/rounding.h).
NYB_NODISCARD nyb_status nyb_batch_init_rounded(nyb_batch *out, const nyb_context *ctx,
                                                const nyb_model *model, const size_t *starts,
                                                size_t samples, nyb_err *err);

// As nyb_batch_init() for `samples` sequences of `length` tokens each.
NYB_NODISCARD nyb_status nyb_batch_init_even(nyb_batch *out, const nyb_context *ctx,
                                             const nyb_model *model, size_t samples, size_t length,
                                             nyb_err *err);

// As nyb_batch_init_even() with nyb_batch.operands as nyb_batch_operands() says, or NYB_F32, and the
// bytes of that. Too few tokens for products of bf16 are kept as f32.
NYB_NODISCARD nyb_status nyb_batch_init_kept(nyb_batch *out, const nyb_context *ctx,
                                             const nyb_model *model, size_t samples, size_t length,
                                             nyb_dtype operands, nyb_err *err);
size_t nyb_batch_kept_bytes(const nyb_context *ctx, const nyb_model *model, size_t samples,
                            size_t length, nyb_dtype operands);

// As nyb_batch_init() for the next `tokens` tokens of one sequence, whose keys and values so far
// are in the cache (which nyb_forward() extends) and which outlives the batch.
NYB_NODISCARD nyb_status nyb_batch_init_cached(nyb_batch *out, const nyb_context *ctx,
                                               const nyb_model *model, size_t tokens,
                                               nyb_cache *cache, nyb_err *err);
void nyb_batch_clear(nyb_batch *batch); // zeroed is fine

// Lists the tokens of each expert anew from routes.weights, which are a part of wide: for callers
// that put rows of wide there.
void nyb_batch_list_routes(nyb_batch *batch);

// Lets every later call see the first `samples` only, of all that the batch was made for.
void nyb_batch_use(nyb_batch *batch, size_t samples);

// x = the embeddings of ids [tokens].
//
// NYB_E_ARG      an id is outside the vocabulary: err has its position and value.
// NYB_E_NUMERIC  an embedding holds a NaN or an infinity.
NYB_NODISCARD nyb_status nyb_embed(const nyb_context *ctx, nyb_batch *batch, const uint32_t *ids,
                                   nyb_err *err);

// How many rows the stage's input has: all tokens, or those that were sent to its expert. The
// stage must be the next to run.
size_t nyb_stage_rows(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage);

// The token of each row of the stage's input, NULL: row i is token i.
const uint32_t *nyb_stage_tokens(const nyb_batch *batch, const nyb_block_weights *weights,
                                 size_t stage);

// The first row of the stage's input that belongs to `token` or to one behind it.
size_t nyb_stage_row_at(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                        size_t token);

// Writes rows [row0, row0 + out.rows) of the input of the stage's linears, as f32 whatever it is kept
// as, into out [*, stage width]. Thread-safe for rows that do not overlap; the stage must be the next to run.
void nyb_stage_input(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                     size_t row0, nyb_mat out);

// The same rows where the batch keeps them, until the stage runs. False where it does not keep them
// as bf16.
bool nyb_stage_operand(const nyb_batch *batch, const nyb_block_weights *weights, size_t stage,
                       size_t row0, size_t rows, nyb_operand *out);

// Runs the stage's linears with the weights as they are now, and what follows up to the next
// stage's input, for all tokens. After a block's last stage x is the block's output.
void nyb_stage_run(const nyb_context *ctx, const nyb_block_weights *weights, size_t stage,
                   nyb_batch *batch);

// What a stage reads and leaves of a batch, for callers that keep it somewhere else in between.
typedef struct nyb_stage_flow {
    bool x_in, x_out; // the residual stream is read, is changed
    size_t wide_in;   // columns of batch->wide that are read, in f32
    size_t wide_out;  // columns that the next stage reads
    bool input_x;     // nyb_stage_input() reads x, else wide_in columns of batch->wide
} nyb_stage_flow;

// operands: of the batch.
nyb_stage_flow nyb_stage_flow_of(const nyb_model *model, nyb_dtype operands, size_t block,
                                 size_t stage);

// All stages of the block whose weights these are.
void nyb_block_run(const nyb_context *ctx, const nyb_block_weights *weights, nyb_batch *batch);

// Final norm and output head of a language model for tokens [token0, token0 + logits.rows): logits [*, vocab].
// To be called after the last block; does not change x. Costs one pass over the head's weights,
// so give it some hundred tokens at once.
//
// NYB_E_NUMERIC  the head or the norm holds a NaN or an infinity.
NYB_NODISCARD nyb_status nyb_head(const nyb_context *ctx, nyb_batch *batch, size_t token0,
                                  nyb_mat logits, nyb_err *err);

// The output of a sequence classifier for each sample: logits [samples, labels].
//
// NYB_E_NUMERIC  the head or the norm holds a NaN or an infinity.
NYB_NODISCARD nyb_status nyb_classify(const nyb_context *ctx, nyb_batch *batch, nyb_mat logits,
                                      nyb_err *err);

// Embeds ids [tokens] and runs every block, loading each into `weights`. Progress: stage
// `what`, unit "layers".
NYB_NODISCARD nyb_status nyb_forward(const nyb_context *ctx, nyb_batch *batch,
                                     nyb_block_weights *weights, const uint32_t *ids,
                                     const char *what, nyb_err *err);

#endif // NYB_MODEL_FORWARD_H_
