// gguf_types.h - the numbers that GGUF gives to types of tensors.
#ifndef NYB_FORMATS_GGUF_TYPES_H_
#define NYB_FORMATS_GGUF_TYPES_H_

#include <stdint.h>

#include "nybble/tensor.h"

// The type behind a number; -1 for one that nybble does not read, with *name set where GGUF has
// such a type.
int nyb_gguf_dtype_of(uint32_t type, const char **name);

#endif // NYB_FORMATS_GGUF_TYPES_H_
