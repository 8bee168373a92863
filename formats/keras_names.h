// keras_names.h - how Keras names the places of layers in a file, and which sublayers it makes.
// Seen by formats/keras_*.c alone.
#ifndef NYB_FORMATS_KERAS_NAMES_H_
#define NYB_FORMATS_KERAS_NAMES_H_

#include "formats/keras_layers.h"

// "MultiHeadAttention" as "multi_head_attention", in the arena; NULL when there is no room.
char *nyb_keras_snake_case(nyb_arena *arena, const char *class_name);

// Names for the members of one list: "dense", "dense_1", ...
typedef struct nyb_keras_counter {
    json_t *used;
} nyb_keras_counter;

// NULL when there is no room.
char *nyb_keras_counter_next(nyb_keras_counter *counter, nyb_arena *arena, const char *class_name);
void nyb_keras_counter_clear(nyb_keras_counter *counter);

// "layers/dense/vars/0", "vars/0" for the model itself; NULL when there is no room.
char *nyb_keras_variable_path(nyb_arena *arena, const char *place, const char *number);

// The place of a layer's attribute, which the file may have under the attribute's private name;
// NULL: it has neither.
char *nyb_keras_child_place(const nyb_keras_file *file, nyb_arena *arena, const char *place,
                            const char *attribute);

// A layer that a layer of some class consists of.
typedef struct nyb_keras_sublayer {
    const char *attribute; // NULL: end of the list
    const char *name;
    const char *class_name;
    const char *equation; // NULL: see nyb_keras_sublayer_equation()
    size_t (*input_rank)(const nyb_keras_layer *layer);
} nyb_keras_sublayer;

// NULL: none is known.
const nyb_keras_sublayer *nyb_keras_sublayers(const char *class_name);

// NULL: none is known, or there is no room.
const char *nyb_keras_sublayer_equation(nyb_arena *arena, const nyb_keras_sublayer *sublayer,
                                        const nyb_keras_layer *layer);

// What a place tells about the layer that is there, in a model of this class. class_name is "" when
// it tells nothing, "Layer" for one that is not quantised.
typedef struct nyb_keras_guess {
    const char *class_name, *equation;
} nyb_keras_guess;

nyb_keras_guess nyb_keras_guess_of(const char *place, const char *model);

// The names of the layers on the way to a place, which the file has, with slashes; in the arena,
// NULL when there is no room.
const char *nyb_keras_guess_scope(const nyb_keras_file *file, nyb_arena *arena, const char *place);

#endif // NYB_FORMATS_KERAS_NAMES_H_
