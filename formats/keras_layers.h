// keras_layers.h - the tree of layers that a Keras configuration describes, with the place of each
// layer's arrays in the file.
//
// Keras names the places by class, not by the layers' names: the members of a model's `layers` are
// "layers/dense", "layers/dense_1", ... in their order, a layer's sublayers are its attributes
// ("layers/multi_head_attention/query_dense").
#ifndef NYB_FORMATS_KERAS_LAYERS_H_
#define NYB_FORMATS_KERAS_LAYERS_H_

#include "formats/keras_file.h"

typedef struct nyb_keras_layer nyb_keras_layer;
struct nyb_keras_layer {
    const char *class_name; // "Dense", "Sequential", ...
    const char *name;       // "dense_3"
    const char *place;      // "layers/dense_1"; "" is the model itself
    const char *scope;      // names of the models and layers around it and its own, with slashes:
                            // "multi_head_attention/query"
    json_t *object;         // {"class_name", "config", "inbound_nodes", "build_config", ...}; of
                            // a sublayer that config.json does not list: NULL
    json_t *config;         // the object's "config"; NULL likewise
    const nyb_keras_layer *parent; // NULL: the model itself
    const nyb_keras_layer *first;  // the occurrence of a shared layer that has the arrays; itself
                                   // for all others
    const char *equation;          // of an EinsumDense, also of one that is not listed
    size_t input_rank;             // of an EinsumDense; 0: not known
    size_t variables;              // arrays "place/vars/0", "place/vars/1", ...
    const char *mode;              // "int8", "int4/128", "gptq/4/128", ... of its dtype policy;
                                   // NULL: it is not quantised
};

typedef struct nyb_keras_layers {
    nyb_arena arena;
    const nyb_keras_file *file;
    nyb_keras_layer **all; // in depth-first order, the model first; the members of a model in the
                           // order of its `layers`
    size_t count;
} nyb_keras_layers;

// Reads the tree. A checkpoint without a configuration, or with that of a KerasHub model, gets the
// layers that the file's groups tell, right below the model: their class is known from the names
// of their places, or is "" where those do not tell.
//
// NYB_E_FORMAT       the configuration breaks its format.
// NYB_E_UNSUPPORTED  another model of a class of its own, whose layers no configuration lists.
NYB_NODISCARD nyb_status nyb_keras_layers_read(nyb_keras_layers *out, const nyb_keras_file *file,
                                               nyb_err *err);
void nyb_keras_layers_clear(nyb_keras_layers *layers);

// The layer's array number `index` as the file has it.
NYB_NODISCARD nyb_status nyb_keras_variable(nyb_keras_file *file, const nyb_keras_layer *layer,
                                            size_t index, nyb_tensor *out, nyb_err *err);

// As floats, [elements of the array], in the arena.
NYB_NODISCARD nyb_status nyb_keras_floats(nyb_keras_file *file, const nyb_keras_layer *layer,
                                          size_t index, nyb_arena *arena, float **out,
                                          nyb_tensor *shape, nyb_err *err);

#endif // NYB_FORMATS_KERAS_LAYERS_H_
