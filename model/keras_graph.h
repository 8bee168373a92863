// keras_graph.h - a Sequential or Functional Keras model as a list of calls of layers, in an order in
// which they can be made, and the execution of that list in f32.
//
// Nested models are taken apart: what remains are calls of plain layers. A layer that is shared, or
// that lies in a model which is called twice, has several calls and its weights once.
#ifndef NYB_MODEL_KERAS_GRAPH_H_
#define NYB_MODEL_KERAS_GRAPH_H_

#include "formats/keras_layers.h"
#include "nybble/context.h"

// A value of the graph: an array in C order whose first axis counts samples. Whole numbers, such as
// ids, are floats too: they are exact up to 2^24.
typedef struct nyb_array {
    float *at;
    unsigned rank; // >= 1
    size_t shape[NYB_MAX_RANK];
} nyb_array;

size_t nyb_array_count(const nyb_array *array); // of elements

// Room for an array of this shape, undefined. `what` is for errors.
//
// NYB_E_NOMEM  no room; out holds nothing.
NYB_NODISCARD nyb_status nyb_array_init(nyb_array *out, unsigned rank, const size_t *shape,
                                        const char *what, nyb_err *err);
void nyb_array_clear(nyb_array *array); // zeroed is fine

// A matrix inside a layer that multiplies its input: y = x kernel + bias.
typedef struct nyb_graph_linear {
    const nyb_keras_layer *layer; // whose array it is: a Dense or an EinsumDense
    size_t in, out;
    float *kernel; // [in, out], the graph's own; the caller may overwrite it
    bool plain;    // the file has it like this: axes that are summed over first, then the others
    unsigned rank; // of the kernel in the file
    size_t shape[NYB_MAX_RANK];
    unsigned stage; // linears of a layer run in stages, each of which reads the results of the last
} nyb_graph_linear;

typedef struct nyb_graph_layer nyb_graph_layer;

// One call of a layer. Values are numbered: the model's inputs first, then the calls' results.
typedef struct nyb_graph_call {
    size_t layer; // index among the graph's layers
    size_t *inputs, input_count;
    size_t output;
    const struct nyb_graph_options *options; // what this call says beside its inputs
} nyb_graph_call;

// An input of the model.
typedef struct nyb_graph_input {
    const char *name;
    unsigned rank;              // with the samples' axis; 0: not known
    size_t shape[NYB_MAX_RANK]; // 0: any
} nyb_graph_input;

typedef struct nyb_graph {
    nyb_arena arena;
    const nyb_keras_layers *source;
    nyb_keras_file *file;
    nyb_graph_layer **layers;
    size_t layer_count;
    nyb_graph_call *calls;
    size_t call_count;
    nyb_graph_input *inputs;
    size_t input_count;
    size_t *outputs; // values
    const char **output_names;
    size_t output_count;
    size_t *last_use; // [values] the last call that reads each; SIZE_MAX: it is an output
} nyb_graph;

// Reads the model's graph and all weights. `source` and `file` have to outlive it.
//
// NYB_E_UNSUPPORTED  a layer that is not known, or something about one; err names it and its class.
// NYB_E_FORMAT       the configuration breaks its format, or the arrays do not fit it.
// After an error out holds nothing.
NYB_NODISCARD nyb_status nyb_graph_open(nyb_graph *out, const nyb_keras_layers *source,
                                        nyb_keras_file *file, nyb_err *err);
void nyb_graph_close(nyb_graph *graph); // zeroed is fine

// The linears of a layer, stage by stage.
size_t nyb_graph_linear_count(const nyb_graph *graph, size_t layer);
nyb_graph_linear *nyb_graph_linear_at(const nyb_graph *graph, size_t layer, size_t index);
unsigned nyb_graph_stage_count(const nyb_graph *graph, size_t layer);

// Whether any call of the layer comes after the first, and the last one's index.
size_t nyb_graph_last_call(const nyb_graph *graph, size_t layer);

// Sees the input of every product, x [rows, in], before it is made.
typedef struct nyb_graph_watch {
    void *user;
    nyb_status (*see)(void *user, const nyb_graph_linear *linear, nyb_mat x, nyb_err *err);
} nyb_graph_watch;

// Values while a graph runs.
typedef struct nyb_graph_run {
    const nyb_context *ctx;
    const nyb_graph *graph;
    const nyb_graph_watch *watch; // NULL: none
    nyb_array *values;            // [values] `at` NULL: not there
} nyb_graph_run;

// Checks the samples against the model's inputs, in their order, and takes them over: they are
// zeroed, also after an error.
//
// NYB_E_SHAPE  a shape does not fit, or the inputs have different numbers of samples.
NYB_NODISCARD nyb_status nyb_graph_begin(nyb_graph_run *out, const nyb_context *ctx,
                                         const nyb_graph *graph, nyb_array *inputs, size_t count,
                                         nyb_err *err);
void nyb_graph_end(nyb_graph_run *run); // zeroed is fine

// Makes call `index`, whose inputs are there; an old result is overwritten.
//
// NYB_E_SHAPE    an input's shape is not one that the layer takes.
// NYB_E_NOMEM    no room, or the values that are there exceed ctx->memory_bytes.
NYB_NODISCARD nyb_status nyb_graph_make(nyb_graph_run *run, size_t index, nyb_err *err);

// Gives up the values that no call after `index` reads.
void nyb_graph_release(nyb_graph_run *run, size_t index);

// One .npy file of samples as a value: floats as they are, whole numbers up to 2^24.
//
// NYB_E_NUMERIC  a NaN or an infinity, or a number that f32 does not hold exactly.
NYB_NODISCARD nyb_status nyb_array_load(nyb_array *out, const char *path, nyb_err *err);

#endif // NYB_MODEL_KERAS_GRAPH_H_
