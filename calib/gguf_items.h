// gguf_items.h - the tensors that a GGUF file gets, from those of a model.
#ifndef NYB_CALIB_GGUF_ITEMS_H_
#define NYB_CALIB_GGUF_ITEMS_H_

#include "calib/gguf_plan.h"

// Fills plan->items: those of the model, experts joined; then `tables`.
//
// NYB_E_UNSUPPORTED  GGUF has no name for a tensor, or nothing to hold it in; err names it.
// NYB_E_NOMEM        no room.
NYB_NODISCARD nyb_status nyb_gguf_items_make(nyb_gguf_plan *plan,
                                             const nyb_gguf_table tables[NYB_GGUF_TABLES],
                                             nyb_err *err);

#endif // NYB_CALIB_GGUF_ITEMS_H_
