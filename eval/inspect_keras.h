// inspect_keras.h - looking at a Keras checkpoint. Seen by eval/inspect*.c alone.
#ifndef NYB_EVAL_INSPECT_KERAS_H_
#define NYB_EVAL_INSPECT_KERAS_H_

#include "core/arena.h"
#include "formats/keras_file.h"
#include "nybble/inspect.h"

// Opens the checkpoint and fills in model_type, method, files, tensors, layers and the sums. With
// `values` the tensors' values are there, too. The caller closes *file, also after an error.
NYB_NODISCARD nyb_status nyb_inspect_keras(nyb_inspection *in, nyb_arena *arena,
                                           nyb_keras_file **file, const char *path, bool values,
                                           nyb_err *err);

#endif // NYB_EVAL_INSPECT_KERAS_H_
