// generate.h - text continuation, one token at a time, with the keys and values of earlier
// positions kept.
#ifndef NYB_GENERATE_H_
#define NYB_GENERATE_H_

#include <stdbool.h>

#include "nybble/context.h"

typedef struct nyb_generate_params {
    size_t max_tokens;  // new tokens at most, >= 1
    double temperature; // logits are divided by it; 0: always the most probable token (the first
                        // of equals); >= 0
    size_t top_k;       // sample among the k most probable tokens; 0: all
    double top_p;       // then among the fewest whose probabilities reach this sum; (0, 1]
    uint64_t seed;      // of the sampling
    bool ignore_eos;    // go on after an end-of-sequence token
} nyb_generate_params;

#define NYB_GENERATE_DEFAULTS                                                                      \
    ((nyb_generate_params){.max_tokens = 128, .temperature = 0.0, .top_k = 0, .top_p = 1.0})

typedef enum nyb_generate_stop {
    NYB_STOP_LENGTH = 0, // max_tokens were made
    NYB_STOP_EOS,        // the model ended the text; that token was handed out too
    NYB_STOP_CALLER,     // the callback said so
} nyb_generate_stop;

typedef struct nyb_generate_result {
    size_t prompt_tokens, new_tokens;
    double prompt_ms, new_ms; // wall time of reading the prompt and of all that came after
    nyb_generate_stop stop;
} nyb_generate_result;

// Called for each new token; false ends the run.
typedef bool (*nyb_generate_token)(void *user, uint32_t id);

typedef struct nyb_generator nyb_generator;

// Opens the model in `folder` and prepares its weights in memory.
//
// NYB_E_NOMEM  the weights take more than ctx->memory_bytes, or than there is.
// Others as the model's files give them. On every error *out is NULL.
NYB_API NYB_NODISCARD nyb_status nyb_generator_open(nyb_generator **out, const nyb_context *ctx,
                                                    const char *folder, nyb_err *err);
NYB_API void nyb_generator_close(nyb_generator *generator); // NULL is fine

// Reads a prompt of ready-made ids: a .npy file of integers with one axis, or a JSON list.
//
//   ids  out, [*count], belongs to the generator and lives until it is closed
//
// NYB_E_FORMAT  not such a file, or an id outside the vocabulary; err names its position.
// NYB_E_SHAPE   more than one sequence.
NYB_API NYB_NODISCARD nyb_status nyb_generator_prompt(nyb_generator *generator, const char *path,
                                                      const uint32_t **ids, size_t *count,
                                                      nyb_err *err);

// Continues `prompt`. The same arguments give the same tokens, at any number of threads.
//
//   prompt  [count] token ids, count >= 1
//   token   may be NULL
//   result  out, may be NULL
//
// NYB_E_ARG    a parameter is outside its range, or an id outside the vocabulary.
// NYB_E_NOMEM  no room for the keys and values of count + max_tokens positions.
NYB_API NYB_NODISCARD nyb_status nyb_generate(nyb_generator *generator, const uint32_t *prompt,
                                              size_t count, const nyb_generate_params *params,
                                              nyb_generate_token token, void *user,
                                              nyb_generate_result *result, nyb_err *err);

#endif // NYB_GENERATE_H_
