// checkpoint.h - the tensors of a Hugging Face folder (model.safetensors, or shards with
// model.safetensors.index.json), or of a GGUF file or a KerasHub preset under the names that a folder
// has, mapped read-only. Nothing is copied but the matrices of a preset, whose elements lie in
// another order.
#ifndef NYB_FORMATS_CHECKPOINT_H_
#define NYB_FORMATS_CHECKPOINT_H_

#include "formats/gguf.h"
#include "formats/keras_file.h"
#include "nybble/tensor.h"

typedef struct nyb_checkpoint nyb_checkpoint;

// Opens a folder, a preset, or one *.safetensors or GGUF file, and checks every file in it as
// nyb_safetensors_open() and nyb_gguf_open() do. With an index, the index and the shards have to list the same
// tensors, each once, and shards are names inside the folder.
//
// NYB_E_IO           the folder or a file is missing or unreadable.
// NYB_E_FORMAT       a file or the index breaks its format.
// NYB_E_UNSUPPORTED  only pickle files (*.bin, *.pt, *.pth, *.ckpt), GGUF or HDF5 are there; err
//                    says how to convert.
// NYB_E_NOMEM        no room for the directory.
// On every error *out is NULL.
NYB_NODISCARD nyb_status nyb_checkpoint_open(nyb_checkpoint **out, const char *path, nyb_err *err);

// Ends every tensor's life. NULL is fine.
void nyb_checkpoint_close(nyb_checkpoint *c);

// The GGUF file that was opened; NULL for a folder or a safetensors file.
const nyb_gguf *nyb_checkpoint_gguf(const nyb_checkpoint *c);

// A kind of file that is recognised in order to say what to do with it; NULL behind the last.
typedef struct nyb_stranger {
    const char *end; // of its name
    const char *text;
} nyb_stranger;
const nyb_stranger *nyb_checkpoint_stranger_at(size_t index);

// The preset that was opened (formats/keras_hub.h); NULL for all else. Nobody else may close it.
nyb_keras_file *nyb_checkpoint_keras(const nyb_checkpoint *c);

// The path as it was opened.
const char *nyb_checkpoint_path(const nyb_checkpoint *c);

// Tensors, sorted by name (bytewise).
size_t nyb_checkpoint_count(const nyb_checkpoint *c);
const nyb_tensor *nyb_checkpoint_at(const nyb_checkpoint *c, size_t index);

// NULL when there is none of this name. O(log count).
const nyb_tensor *nyb_checkpoint_find(const nyb_checkpoint *c, const char *name);

// As nyb_checkpoint_find(), but a missing tensor is NYB_E_FORMAT naming it and the folder.
NYB_NODISCARD nyb_status nyb_checkpoint_get(const nyb_tensor **out, const nyb_checkpoint *c,
                                            const char *name, nyb_err *err);

// Whether a linear layer's matrix lies in its tensor "<module>.<part>": weights or codes, scales, zero
// points, group indices; not the bias, nor what tells a shape or is for the input. These are what
// bits per weight count (docs/formats.md).
bool nyb_part_of_matrix(const char *part);

// Bytes of those tensors. 0 where the layer has no tensors of its own.
size_t nyb_checkpoint_layer_bytes(const nyb_checkpoint *c, const char *module);

// The path of the file that holds a tensor of this checkpoint, for errors.
const char *nyb_checkpoint_file_of(const nyb_checkpoint *c, const nyb_tensor *tensor);

// The tensor files: path and whole content, for hashing. Sorted by name.
size_t nyb_checkpoint_files(const nyb_checkpoint *c);
const char *nyb_checkpoint_file(const nyb_checkpoint *c, size_t index);
const void *nyb_checkpoint_file_bytes(const nyb_checkpoint *c, size_t index, size_t *bytes);

// Gives back the pages of the files that were read so far; they are mapped again when needed. A large
// page reaches beyond the tensor that it was read for, so giving back tensors alone leaves some.
void nyb_checkpoint_release(const nyb_checkpoint *c);

#endif // NYB_FORMATS_CHECKPOINT_H_
