// keras_hub.h - KerasHub's presets of language models, and how their arrays lie against the tensors
// of a Hugging Face folder of the same model.
//
// KerasHub multiplies by [inputs, outputs] where a folder has [outputs, inputs], gives heads axes of
// their own, and keeps query, key and value apart where GPT-2 has one matrix. No number changes.
#ifndef NYB_FORMATS_KERAS_HUB_H_
#define NYB_FORMATS_KERAS_HUB_H_

#include "core/file.h"
#include "formats/keras_file.h"

typedef enum nyb_hub_form {
    NYB_HUB_SAME = 0, // the same order of elements
    NYB_HUB_TURNED,   // [inputs, outputs], of which either may be several axes
    NYB_HUB_HEADS,    // [heads, inputs, values] for [heads * values, inputs]
    NYB_HUB_THIRD,    // one of three blocks of columns of the folder's tensor
} nyb_hub_form;

// An array of a preset and the tensor that has its numbers.
typedef struct nyb_hub_part {
    const char *path; // "layers/llama_transformer_decoder_1/_key_dense/vars/0"
    const char *name; // "model.layers.1.self_attn.k_proj.weight"
    nyb_hub_form form;
    unsigned third;             // of NYB_HUB_THIRD: 0, 1, 2
    unsigned rank;              // in the preset
    size_t shape[NYB_MAX_RANK]; //
    size_t inputs;              // of NYB_HUB_TURNED and NYB_HUB_HEADS
    unsigned folder_rank;       // in the folder
    size_t folder_shape[2];     //
} nyb_hub_part;

typedef struct nyb_hub_family nyb_hub_family;

// The family of a preset's class ("LlamaBackbone") or of a folder's model_type ("llama"); NULL: none.
const nyb_hub_family *nyb_hub_family_of_class(const char *class_name);
const nyb_hub_family *nyb_hub_family_of_model(const char *model_type);
const char *nyb_hub_class(const nyb_hub_family *family);  // of new presets
const char *nyb_hub_module(const nyb_hub_family *family); // where Python finds it
const char *nyb_hub_model_type(const nyb_hub_family *family);

// Every array of a preset with this configuration (the "config" of its config.json), in the arena.
//
//   tied  the output head is the embedding, or the family has no other
//
// NYB_E_FORMAT  a size is missing or no size.
NYB_NODISCARD nyb_status nyb_hub_parts(nyb_hub_part **parts, size_t *count, nyb_arena *arena,
                                       const nyb_hub_family *family, const json_t *config,
                                       bool tied, const char *name, nyb_err *err);

// The preset's family, NULL for any other checkpoint, and whether its head is tied.
const nyb_hub_family *nyb_hub_family_of(const nyb_keras_file *file, bool *tied);

// A preset's tensors as a folder has them: names, shapes and orders of elements. Those whose order
// is another one are copied, the others are the file's.
//
//   copies  out: the caller's to close, also after an error; it lies in a file without a name
//
// NYB_E_IO           no room for the copies where TMPDIR says.
// NYB_E_FORMAT       an array is missing, has another shape, or belongs to no part of the model.
// NYB_E_UNSUPPORTED  the class is not one of a family above; err names it.
NYB_NODISCARD nyb_status nyb_hub_as_folder(nyb_keras_file *file, nyb_arena *arena, nyb_map *copies,
                                           nyb_tensor **tensors, size_t *count, nyb_err *err);

// The array of a part, in the preset's order, made of the folder's tensor: new memory,
// nyb_free(). `tensor` has the part's folder_shape.
//
// NYB_E_NOMEM  no room.
NYB_NODISCARD nyb_status nyb_hub_make(void **out, const nyb_hub_part *part,
                                      const nyb_tensor *tensor, nyb_err *err);

#endif // NYB_FORMATS_KERAS_HUB_H_
