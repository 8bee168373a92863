// binding.h - tensors of an opened model that only the forward pass reads.
#ifndef NYB_MODEL_BINDING_H_
#define NYB_MODEL_BINDING_H_

#include "model/model.h"

// Gains of the norm before a stage, NULL where there is none.
const nyb_tensor *nyb_norm_at(const nyb_model *model, size_t block, size_t stage);

// The head's codes when it is quantised, else zeroed.
const nyb_qweight *nyb_model_head_codes(const nyb_model *model);

#endif // NYB_MODEL_BINDING_H_
