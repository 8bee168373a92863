// recipe.h - which settings each linear layer is rounded with: defaults, a recipe file, the
// caller's own settings, and patterns of module names.
//
// A recipe is a JSON object of general settings, named as on the command line with underscores,
// and of "modules", a list in which later entries win:
//
//     {"weight_bits": 4, "group_size": 64,
//      "modules": [{"pattern": "model.layers.*.mlp.down_proj", "weight_bits": 8},
//                  {"pattern": "*.layers.0.*", "method": "none"}],
//      "head": {"method": "int8"}}
//
// A pattern is a shell pattern (fnmatch) over the whole module name; '*' also matches dots. The
// embedding and the output head, which no pattern reaches, stay as they are unless the recipe has
// settings for "embedding" or "head".
#ifndef NYB_CALIB_RECIPE_H_
#define NYB_CALIB_RECIPE_H_

#include "core/json.h"
#include "nybble/quantize.h"

typedef struct nyb_recipe {
    nyb_settings general;
    json_t *document; // NULL: no recipe
    const char *path;
    size_t int4_group; // that int4 has unless told otherwise; 0: one scale for each output channel
} nyb_recipe;

// Loads params->recipe, if there is one, and merges the general settings. Every key is known and
// every value in its range when this succeeds.
//
// NYB_E_ARG     a setting of params is outside its range.
// NYB_E_FORMAT  the recipe has an unknown key or a value of the wrong kind or range.
NYB_NODISCARD nyb_status nyb_recipe_open(nyb_recipe *out, const nyb_quantize_params *params,
                                         nyb_err *err);

// The same for a Keras checkpoint: int4 has groups of 128 there, as Keras itself makes them.
NYB_NODISCARD nyb_status nyb_recipe_open_keras(nyb_recipe *out, const nyb_quantize_params *params,
                                               nyb_err *err);

void nyb_recipe_close(nyb_recipe *recipe);

// The settings of one module. A group that is wider than the layer is the layer's own error.
//
// NYB_E_ARG  several patterns match, and what they say together is outside its range.
NYB_NODISCARD nyb_status nyb_recipe_of(const nyb_recipe *recipe, const char *module,
                                       nyb_settings *out, nyb_err *err);

// The settings of the embedding or the head.
//
//   key     "embedding" or "head"
//   method  what the caller asks for, which wins over the recipe; "none"; NULL: nothing
//
// NYB_E_ARG          there is no such method, or what the recipe says is outside its range.
// NYB_E_FORMAT       the recipe has an unknown key or a value of the wrong kind.
// NYB_E_UNSUPPORTED  it is to be solved, or to have its input rounded.
NYB_NODISCARD nyb_status nyb_recipe_outer(const nyb_recipe *recipe, const char *key,
                                          const char *method, nyb_settings *out, nyb_err *err);

// Overwrites the settings that the object names, and says which of them it names, as in
// nyb_quantize_params. `also` (a list that ends with NULL) are keys that it may have beside those;
// `where` stands for the source in errors.
//
// NYB_E_FORMAT, NYB_E_ARG  as nyb_recipe_open(); *out is left alone.
NYB_NODISCARD nyb_status nyb_settings_take(const json_t *object, const char *const *also,
                                           const char *where, nyb_settings *out, unsigned *given,
                                           nyb_err *err);

// The first pattern that matches none of the names, NULL when each matches one.
const char *nyb_recipe_unused(const nyb_recipe *recipe, const char *const *modules, size_t count);

// The settings as an object with the recipe's own keys. NULL when there is no memory.
json_t *nyb_settings_json(const nyb_settings *settings);

#endif // NYB_CALIB_RECIPE_H_
