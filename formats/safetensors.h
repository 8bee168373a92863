// safetensors.h - one safetensors file: an 8-byte little-endian header length, a JSON header,
// and the tensors' bytes, little-endian, row-major, without gaps.
//
// Source: huggingface/safetensors, README "Format" and the limits of its reference reader.
#ifndef NYB_FORMATS_SAFETENSORS_H_
#define NYB_FORMATS_SAFETENSORS_H_

#include "core/arena.h"
#include "core/file.h"
#include "core/json.h"

enum { NYB_SAFETENSORS_HEADER_LIMIT = 100000000 }; // bytes, the reference reader's limit

// An open file, or one that was parsed from memory. Tensors are sorted by offset, then by name;
// their bytes are the mapping's.
typedef struct nyb_safetensors {
    nyb_map map;      // empty when parsed from memory
    nyb_arena arena;  // path, names and tensors
    const char *path; // as opened
    nyb_tensor *tensors;
    size_t count;
    json_t *metadata; // string -> string, or NULL
} nyb_safetensors;

// Maps the file and checks its header completely: no reader of a tensor needs to check an
// offset again.
//
// NYB_E_IO           the system refused, err says what.
// NYB_E_FORMAT       the file breaks the format: header length, UTF-8, JSON, duplicate keys, a
//                    dtype or shape that does not give the stated size, an overflow, holes,
//                    overlaps, bytes missing or left over at the end, metadata that is not a
//                    map of strings, a file of another kind (GGUF, pickle, HDF5, Git LFS).
// NYB_E_UNSUPPORTED  a dtype or rank that nybble does not hold.
// On every error *out is zeroed.
NYB_NODISCARD nyb_status nyb_safetensors_open(nyb_safetensors *out, const char *path, nyb_err *err);

// As nyb_safetensors_open() for a file's bytes in memory, which have to outlive *out. `name`
// stands for the file in errors.
NYB_NODISCARD nyb_status nyb_safetensors_parse(nyb_safetensors *out, const void *bytes,
                                               size_t length, const char *name, nyb_err *err);

// A zeroed file is fine.
void nyb_safetensors_close(nyb_safetensors *file);

// Bytes of a tensor of this dtype and shape; false when the product overflows, or when rows of a
// block type are not whole blocks.
bool nyb_tensor_size(nyb_dtype dtype, unsigned rank, const size_t *shape, size_t *bytes);

// Describes a tensor that is still to be written: at is NULL, bytes follows from the shape.
//
// NYB_E_ARG  the rank is above NYB_MAX_RANK or the size overflows.
NYB_NODISCARD nyb_status nyb_tensor_describe(nyb_tensor *out, const char *name, nyb_dtype dtype,
                                             unsigned rank, const size_t *shape, nyb_err *err);

// "F32 [2, 3]" in the arena, for errors and listings; NULL when there is no room.
const char *nyb_tensor_text(nyb_arena *arena, const nyb_tensor *tensor);

// Sorts indices into `tensors` as the reference writer orders a file: by type, large elements
// first, then by name.
NYB_NODISCARD nyb_status nyb_safetensors_sort(size_t *order, const nyb_tensor *tensors,
                                              size_t count, nyb_err *err);

// The first bytes of a file that holds tensors[order[0..count)] in this order: the length, the
// JSON with `__metadata__` {"format":"pt"}, and spaces up to a multiple of 8. In the arena.
//
// NYB_E_ARG    a name is empty, not UTF-8, used twice or "__metadata__".
// NYB_E_SHAPE  the header would exceed NYB_SAFETENSORS_HEADER_LIMIT.
// NYB_E_NOMEM  no room.
NYB_NODISCARD nyb_status nyb_safetensors_header(const char **bytes, size_t *length,
                                                nyb_arena *arena, const nyb_tensor *tensors,
                                                const size_t *order, size_t count, nyb_err *err);

#endif // NYB_FORMATS_SAFETENSORS_H_
