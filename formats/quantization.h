// quantization.h - what a checkpoint's quantization_config says: for each linear layer, whether
// it is quantised, in which layout, and with which settings.
#ifndef NYB_FORMATS_QUANTIZATION_H_
#define NYB_FORMATS_QUANTIZATION_H_

#include "formats/layout.h"

typedef struct nyb_quantization nyb_quantization;

// One layer's answer.
typedef struct nyb_quantized {
    const nyb_layout *layout; // NULL: not quantised
    nyb_layout_spec spec;     // rows, cols and scale_dtype are 0: they follow from the tensors
} nyb_quantized;

// A method that is read, for lists; NULL behind the last.
typedef struct nyb_quantization_named {
    const char *method; // 'quant_method'
    const char *about;  // which of its variants
} nyb_quantization_named;
const nyb_quantization_named *nyb_quantization_method_at(size_t index);

// Reads the quantization_config of a parsed config.json; without one (or null) *out is NULL and
// the status NYB_OK: a plain checkpoint. Everything needed is copied.
//
//   name  stands for the file in errors
//
// NYB_E_FORMAT       a key has the wrong kind of value, or a pattern is not a regular expression.
// NYB_E_UNSUPPORTED  a method, format or feature that nybble does not read; err names it.
NYB_NODISCARD nyb_status nyb_quantization_open(nyb_quantization **out, const json_t *config,
                                               const char *name, nyb_err *err);

// As nyb_quantization_open() for folder/config.json, or, where that says nothing, for
// folder/quantize_config.json. Neither file has to exist.
NYB_NODISCARD nyb_status nyb_quantization_load(nyb_quantization **out, const char *folder,
                                               nyb_err *err);

// NULL is fine.
void nyb_quantization_close(nyb_quantization *quantization);

// "gptq", "compressed-tensors", ... as the file spells it; "none" for NULL.
const char *nyb_quantization_method(const nyb_quantization *quantization);

// What the configuration says about a linear layer. A NULL quantization answers "not quantised".
//
//   module  "model.layers.0.self_attn.q_proj", without ".weight"
//
// NYB_E_NOMEM, NYB_E_FORMAT  the regular expressions failed on this name.
NYB_NODISCARD nyb_status nyb_quantization_of(nyb_quantized *out,
                                             const nyb_quantization *quantization,
                                             const char *module, nyb_err *err);

// As nyb_quantization_of(), but the checkpoint has the last word: a layer with a plain
// "<module>.weight" is not quantised whatever the configuration says about it.
NYB_NODISCARD nyb_status nyb_quantization_find(nyb_quantized *out,
                                               const nyb_quantization *quantization,
                                               const nyb_checkpoint *file, const char *module,
                                               nyb_err *err);

// The scale of a layer's input, 0 where the file has none.
//
// NYB_E_FORMAT  it is not one finite number above 0.
NYB_NODISCARD nyb_status nyb_quantization_input_scale(float *out, const nyb_checkpoint *file,
                                                      const char *module, nyb_err *err);

// Reads a quantised layer of this shape.
//
// NYB_E_ARG  the layer is not quantised.
// Others as nyb_layout.unpack(); on an error *out is zeroed.
NYB_NODISCARD nyb_status nyb_quantization_read(nyb_qweight *out,
                                               const nyb_quantization *quantization,
                                               const nyb_checkpoint *file, const char *module,
                                               size_t rows, size_t cols, nyb_err *err);

#endif // NYB_FORMATS_QUANTIZATION_H_
