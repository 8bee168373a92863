// score.h - running windows through models and comparing the predictions, position by position.
#ifndef NYB_EVAL_SCORE_H_
#define NYB_EVAL_SCORE_H_

#include "eval/windows.h"
#include "model/forward.h"

// Sums over scored positions, added one after the other in the order of the text.
typedef struct nyb_score {
    double loss;  // negative log-probabilities, nats
    double kl;    // of the base's distribution from this one's
    size_t agree; // positions with the base's most probable token
    size_t scored;
} nyb_score;

// The residual stream behind models[0]'s last block, for the next call with the same windows and model.
typedef struct nyb_finals {
    float *at;  // [tokens of all windows, hidden], the caller's
    bool known; // it holds them
} nyb_finals;

// Scores every window with each model. models[0] is the base of kl and agree.
//
//   finals  used in place of running models[0], or else filled; NULL: neither
//   scores  out, [count]
//
// NYB_E_SHAPE    a model's hidden size or vocabulary is not the base's.
// NYB_E_NUMERIC  a logit is NaN or infinite.
// NYB_E_NOMEM    no room.
NYB_NODISCARD nyb_status nyb_score_windows(const nyb_context *ctx, nyb_model *const *models,
                                           size_t count, const nyb_windows *windows,
                                           nyb_finals *finals, nyb_score *scores, nyb_err *err);

#endif // NYB_EVAL_SCORE_H_
