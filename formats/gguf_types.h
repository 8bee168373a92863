// gguf_types.h - the numbers that GGUF gives to types of tensors.
#ifndef NYB_FORMATS_GGUF_TYPES_H_
#define NYB_FORMATS_GGUF_TYPES_H_

#include <stdint.h>

#include "nybble/tensor.h"

// One number of GGUF's.
typedef struct nyb_gguf_type_row {
    const char *name;
    int dtype; // -1: not read
} nyb_gguf_type_row;

// False, with *out left alone, behind the last.
bool nyb_gguf_type_at(size_t index, nyb_gguf_type_row *out);

// The type behind a number; -1 for one that nybble does not read, with *name set where GGUF has
// such a type.
int nyb_gguf_dtype_of(uint32_t type, const char **name);

#endif // NYB_FORMATS_GGUF_TYPES_H_
