// keras_build.h - how a graph is made of a configuration: the parts that two files share.
#ifndef NYB_MODEL_KERAS_BUILD_H_
#define NYB_MODEL_KERAS_BUILD_H_

#include "model/keras_op.h"

enum { NYB_GRAPH_VALUES = 1024, NYB_GRAPH_DEPTH = 16 }; // of a call; of models in models

typedef struct nyb_graph_model nyb_graph_model;

// One entry of a model's list of layers.
typedef struct nyb_graph_entry {
    const char *name;
    const json_t *config;
    const nyb_keras_layer *source; // NULL: an InputLayer
    size_t layer;                  // among the graph's, of a plain layer
    nyb_graph_model *model;        // NULL: it is no model
    const json_t *nodes;
    size_t node_count;
} nyb_graph_entry;

struct nyb_graph_model {
    const nyb_keras_layer *source;
    nyb_graph_entry *entries;
    size_t count;
    bool functional;
};

// Numbers of values.
typedef struct nyb_graph_values {
    size_t *at;
    size_t count;
} nyb_graph_values;

typedef struct nyb_graph_builder {
    nyb_graph *graph;
    size_t capacity;   // of graph->calls
    size_t executions; // of models
} nyb_graph_builder;

// Where one execution of a model stands.
typedef struct nyb_graph_execution {
    const nyb_graph_model *model;
    nyb_graph_values **made; // of each entry, of each of its calls that is done
    size_t *done;            // calls of each entry
} nyb_graph_execution;

// Room in the graph's arena; count is 0.
NYB_NODISCARD nyb_status nyb_graph_values_make(nyb_graph_builder *b, nyb_graph_values *out,
                                               size_t count, nyb_err *err);

// Calls a model: its calls go on the graph's list.
NYB_NODISCARD nyb_status nyb_graph_call_model(nyb_graph_builder *b, const nyb_graph_model *m,
                                              const nyb_graph_values *inputs, unsigned depth,
                                              nyb_graph_values *outputs, nyb_err *err);

// The references in input_layers or output_layers, in Keras' order: objects by their sorted keys.
NYB_NODISCARD nyb_status nyb_graph_ends(const nyb_graph_model *m, const char *key,
                                        const json_t *out[NYB_GRAPH_VALUES], size_t *count,
                                        nyb_err *err);

// The value that [layer, call, result] stands for. *waits: it is not made yet.
//
//   listed  among input_layers or output_layers, where a Functional model's own making counts as
//           its first call
NYB_NODISCARD nyb_status nyb_graph_refer(const nyb_graph_execution *run, const json_t *history,
                                         bool listed, size_t *value, bool *waits, nyb_err *err);

// Makes call `node` of an entry if its inputs are there; *waits otherwise.
NYB_NODISCARD nyb_status nyb_graph_make_node(nyb_graph_builder *b, nyb_graph_execution *run,
                                             size_t index, size_t node, unsigned depth, bool *waits,
                                             nyb_err *err);

// Puts the call of a plain layer on the list; *value is its result. Takes inputs over.
NYB_NODISCARD nyb_status nyb_graph_add_call(nyb_graph_builder *b, const nyb_graph_entry *e,
                                            const nyb_graph_values *inputs,
                                            const nyb_graph_options *options, size_t *value,
                                            nyb_err *err);

// Whether an object says that it is of this class.
bool nyb_graph_is(const json_t *object, const char *class_name);

// The items of a list or a tuple; NULL: it is neither.
const json_t *nyb_graph_items(const json_t *value);

#endif // NYB_MODEL_KERAS_BUILD_H_
