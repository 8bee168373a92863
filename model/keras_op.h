// keras_op.h - what the graph knows of each class of layers.
#ifndef NYB_MODEL_KERAS_OP_H_
#define NYB_MODEL_KERAS_OP_H_

#include "core/json.h"
#include "model/keras_graph.h"

enum { NYB_NO_VALUE = -1 }; // as (size_t): an argument that a call leaves out

// What a call says beside its inputs.
typedef struct nyb_graph_options {
    bool causal;  // use_causal_mask
    bool reverse; // of a ReversibleEmbedding
} nyb_graph_options;

typedef struct nyb_graph_opening {
    nyb_graph *graph;
    nyb_graph_layer *layer;
    const json_t *config; // the layer's
} nyb_graph_opening;

// One call with its values.
typedef struct nyb_graph_args {
    const nyb_graph_run *run;
    const nyb_graph_layer *layer;
    const nyb_graph_options *options;
    const nyb_array **in; // [count] NULL: left out
    size_t count;
    nyb_array *out; // to be made; holds nothing
} nyb_graph_args;

typedef struct nyb_graph_op {
    const char *class_name;
    const char *const *slots; // names of the arguments that are values, NULL: a list of values
    unsigned required;        // that every call has to have
    bool identity;            // the output is the input: nothing runs

    // Reads the configuration and the weights into layer->self and layer->linears. NULL: nothing.
    nyb_status (*open)(const nyb_graph_opening *opening, nyb_err *err);
    nyb_status (*run)(const nyb_graph_args *args, nyb_err *err);
} nyb_graph_op;

enum { NYB_GRAPH_LINEARS = 5 };

struct nyb_graph_layer {
    const nyb_graph_op *op;
    const nyb_keras_layer *source;
    void *self; // op's own
    nyb_graph_linear *linears[NYB_GRAPH_LINEARS];
    size_t linear_count;
    unsigned stages; // 0 without linears
};

extern const nyb_graph_op nyb_graph_op_dense, nyb_graph_op_einsum, nyb_graph_op_embedding,
    nyb_graph_op_reversible, nyb_graph_op_mha, nyb_graph_op_gqa, nyb_graph_op_layer_norm,
    nyb_graph_op_rms_norm, nyb_graph_op_activation, nyb_graph_op_relu, nyb_graph_op_leaky_relu,
    nyb_graph_op_elu, nyb_graph_op_prelu, nyb_graph_op_softmax, nyb_graph_op_flatten,
    nyb_graph_op_reshape, nyb_graph_op_permute, nyb_graph_op_concatenate, nyb_graph_op_add,
    nyb_graph_op_subtract, nyb_graph_op_multiply, nyb_graph_op_average, nyb_graph_op_maximum,
    nyb_graph_op_minimum, nyb_graph_op_mean_pool, nyb_graph_op_max_pool;

// NULL: a class that is not known.
const nyb_graph_op *nyb_graph_op_find(const char *class_name);

// ---- For the files that implement them -----------------------------------------------------

// The error for something about a layer that is not supported, or wrong: its name and class come
// first.
__attribute__((format(printf, 4, 5))) nyb_status nyb_graph_fail(const nyb_keras_layer *layer,
                                                                nyb_status status, nyb_err *err,
                                                                const char *format, ...);

// Reads array `index` of `layer` as floats that lie in the graph's arena.
NYB_NODISCARD nyb_status nyb_graph_variable(nyb_graph *graph, const nyb_keras_layer *layer,
                                            size_t index, nyb_array *out, nyb_err *err);

// The same, for an array that has to have `count` values.
NYB_NODISCARD nyb_status nyb_graph_vector(nyb_graph *graph, const nyb_keras_layer *layer,
                                          size_t index, size_t count, float **out, nyb_err *err);

// config[key] as a whole number of either sign; missing or null leaves *out alone.
NYB_NODISCARD nyb_status nyb_graph_integer(const nyb_graph_opening *o, const char *key, int *out,
                                           nyb_err *err);
NYB_NODISCARD nyb_status nyb_graph_size(const nyb_graph_opening *o, const char *key, size_t *out,
                                        nyb_err *err);
NYB_NODISCARD nyb_status nyb_graph_real(const nyb_graph_opening *o, const char *key, double *out,
                                        nyb_err *err);
NYB_NODISCARD nyb_status nyb_graph_bool(const nyb_graph_opening *o, const char *key, bool *out,
                                        nyb_err *err);

// layer->self, zeroed, of this size. NULL and an error when there is no room.
void *nyb_graph_self(const nyb_graph_opening *o, size_t bytes, nyb_err *err);

// Adds a linear to the layer, with this array of the file as its kernel; the first axes, `in` values
// together, are summed over. A caller whose axes lie otherwise sets another one.
NYB_NODISCARD nyb_status nyb_graph_add_linear(const nyb_graph_opening *o,
                                              const nyb_keras_layer *layer, const nyb_array *kernel,
                                              size_t in, unsigned stage, nyb_graph_linear **linear,
                                              nyb_err *err);

// out = x kernel, after the run's watch has seen x. x [rows, in], out [rows, out].
NYB_NODISCARD nyb_status nyb_graph_multiply(const nyb_graph_run *run,
                                            const nyb_graph_linear *linear, nyb_mat x, nyb_mat out,
                                            nyb_err *err);

// A new array of the first input's shape.
NYB_NODISCARD nyb_status nyb_graph_like(const nyb_graph_args *args, nyb_err *err);

// ---- Einsum --------------------------------------------------------------------------------

typedef struct nyb_einsum nyb_einsum;

// An EinsumDense with this equation, of the layer or of a part of it. `bias_axes` NULL: no bias.
NYB_NODISCARD nyb_status nyb_einsum_open(nyb_einsum **out, const nyb_graph_opening *o,
                                         const nyb_keras_layer *layer, const char *equation,
                                         bool biased, unsigned stage, nyb_err *err);

// The kernel's axes as the file has them.
const nyb_array *nyb_einsum_kernel(const nyb_einsum *e);

NYB_NODISCARD nyb_status nyb_einsum_run(const nyb_graph_run *run, const nyb_einsum *e,
                                        const nyb_array *in, nyb_array *out, nyb_err *err);

// ---- Arrays --------------------------------------------------------------------------------

// out's axis i is in's axis order[i]; out has room and its shape is set here.
void nyb_array_permute(nyb_array *out, const nyb_array *in, const unsigned *order);

// to = op(to, with), where with's axes, aligned with to's last ones, are 1 or to's own.
typedef void nyb_array_op(float *to, const float *with, size_t step, size_t n);
void nyb_array_combine(nyb_array *to, const nyb_array *with, nyb_array_op *op);
bool nyb_array_fits(const nyb_array *to, const nyb_array *with); // for the above

nyb_array_op nyb_array_add, nyb_array_multiply; // step 0: with has one value for all n

// ---- Activations ---------------------------------------------------------------------------

// A function of each value, or of rows. Zeroed: none.
typedef struct nyb_keras_function {
    double (*each)(const double *p, double v);
    void (*row)(float *x, size_t n); // instead, over the last axis
    double p[3];
} nyb_keras_function;

// config[key]: a name, null, or an object that names a function of Keras.
NYB_NODISCARD nyb_status nyb_keras_function_read(const nyb_graph_opening *o, const char *key,
                                                 nyb_keras_function *out, nyb_err *err);

// False for a name that is not known.
bool nyb_keras_function_named(nyb_keras_function *out, const char *name);

void nyb_keras_function_apply(const nyb_context *ctx, const nyb_keras_function *f,
                              const nyb_array *x);

#endif // NYB_MODEL_KERAS_OP_H_
