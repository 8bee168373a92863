// inspect.h - what a checkpoint holds: tensors, which layers are quantised how, and which other
// programs will load it.
#ifndef NYB_INSPECT_H_
#define NYB_INSPECT_H_

#include "nybble/context.h"
#include "nybble/tensor.h"

typedef struct nyb_inspect_params {
    bool check; // read every quantised layer in full, and look for NaN and infinity in the rest
} nyb_inspect_params;

#define NYB_INSPECT_DEFAULTS ((nyb_inspect_params){.check = false})

// A linear layer, or the embedding: a module with a weight of two axes.
typedef struct nyb_inspect_layer {
    const char *name;   // "model.layers.0.self_attn.q_proj"
    const char *layout; // "gptq", ..., or "unknown" when no configuration tells; NULL: a plain
                        // weight, and bits, group_size, ... are 0
    const char *format; // of layouts that have several, "int-quantized"; NULL: it has not
    nyb_dtype dtype;    // of the plain weight, or of the scales
    size_t rows, cols;
    unsigned bits;
    size_t group_size; // columns; 0: one group per channel
    bool symmetric;
    bool irregular;    // the columns of a group do not lie together
    bool padded;       // 3 bits in the packing that compressed-tensors left in 2026
    double weights;    // rows * cols, and twice that of an embedding with a matrix for the way back
    size_t bytes;      // of what they lie in: 8 * bytes / weights are its bits per weight
    const char *fault; // why nybble cannot read it; NULL: it can, as far as was looked
} nyb_inspect_layer;

typedef struct nyb_inspect_dtype {
    nyb_dtype dtype;
    size_t tensors, bytes;
} nyb_inspect_dtype;

typedef struct nyb_inspect_file {
    const char *path;
    size_t bytes;
} nyb_inspect_file;

typedef enum nyb_verdict {
    NYB_LOADS = 0,
    NYB_LOADS_IF, // under the conditions that are given
    NYB_LOADS_NOT,
} nyb_verdict;

enum { NYB_INSPECT_REASONS = 8 };

// What another program does with the checkpoint.
typedef struct nyb_inspect_reader {
    const char *name;
    nyb_verdict verdict;
    const char *reasons[NYB_INSPECT_REASONS]; // conditions, or why not
    size_t reason_count;
} nyb_inspect_reader;

// Everything belongs to the inspection and lives until nyb_inspect_close().
typedef struct nyb_inspection {
    const char *path;
    bool gguf;               // one GGUF file
    const char *model_type;  // of config.json, or a GGUF file's; NULL: there is none
    const char *method;      // quantization method; "none"
    const char *fault;       // why nybble cannot read the quantization config; NULL: it can
    const char *family;      // which one of nybble's families the model is; NULL: of none
    const char *model_fault; // why nybble cannot run the model; NULL: it can, or no config.json
    const char *const *unsupported; // everything that config.json asks for and nybble does not
                                    // have; model_fault names all of it, as far as a line goes
    size_t unsupported_count;
    const nyb_inspect_file *files;
    size_t file_count;
    const nyb_tensor *const *tensors; // by name
    const char *const *tensor_files;  // path for each tensor
    size_t tensor_count;
    const nyb_inspect_dtype *dtypes; // those that occur
    size_t dtype_count;
    const nyb_inspect_layer *layers; // by name
    size_t layer_count;
    size_t faults;           // layers, or plain tensors, with a fault
    const char *first_fault; // one line; NULL: none
    size_t bytes;            // of all tensors
    size_t parameters;       // weights as the model counts them: a packed layer's rows x cols
    double layer_bits;       // bits per weight of quantised layers, as quantize.h has it; 0: none
    double bits;             // bits per parameter over everything
    const nyb_inspect_reader *readers;
    size_t reader_count;
    void *owner;
} nyb_inspection;

// Looks at a Hugging Face folder, at one *.safetensors or GGUF file, or at a Keras checkpoint. A
// folder may hold config.json alone: then it is told whether nybble would run such a model.
//
// A layer or a quantization config that nybble cannot read is no error: it is reported.
//
// NYB_E_IO, NYB_E_FORMAT, NYB_E_UNSUPPORTED  the files themselves cannot be opened.
// NYB_E_NOMEM                                no room.
// On every error *out is zeroed.
NYB_API NYB_NODISCARD nyb_status nyb_inspect_open(nyb_inspection *out, const char *path,
                                                  const nyb_inspect_params *params,
                                                  const nyb_context *ctx, nyb_err *err);

// A zeroed one is fine.
NYB_API void nyb_inspect_close(nyb_inspection *inspection);

#endif // NYB_INSPECT_H_
