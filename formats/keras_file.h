// keras_file.h - Keras 3 checkpoints: .keras archives, .weights.h5 files, and folders with
// config.json and model.weights.h5 or its shards (KerasHub presets).
//
// Arrays are found by the path of their group and by number ("layers/dense_1/vars/0"): Keras
// itself looks at nothing else when it loads them.
#ifndef NYB_FORMATS_KERAS_FILE_H_
#define NYB_FORMATS_KERAS_FILE_H_

#include "formats/hdf5.h"

typedef enum nyb_keras_kind {
    NYB_KERAS_ARCHIVE = 0, // MODEL.keras, a zip archive
    NYB_KERAS_WEIGHTS,     // MODEL.weights.h5
    NYB_KERAS_FOLDER,      // config.json beside model.weights.h5 or model.weights.json
} nyb_keras_kind;

typedef struct nyb_keras_file nyb_keras_file;

// Whether a path is meant as a Keras checkpoint: by its name for files, for folders by what is in
// them. Opens nothing.
bool nyb_keras_is(const char *path);

// Opens a checkpoint of any kind.
//
//   config  JSON file with the model's configuration, for .weights.h5 (model.to_json(), or the
//           config.json of a .keras archive); NULL: none, or the checkpoint's own
//
// Errors as nyb_hdf5_open(); NYB_E_FORMAT also for a damaged archive or configuration.
NYB_NODISCARD nyb_status nyb_keras_open(nyb_keras_file **out, const char *path, const char *config,
                                        nyb_err *err);
void nyb_keras_close(nyb_keras_file *file); // NULL is fine

const char *nyb_keras_path(const nyb_keras_file *file);
nyb_keras_kind nyb_keras_kind_of(const nyb_keras_file *file);

// The configuration, NULL: there is none. Borrowed.
const json_t *nyb_keras_config(const nyb_keras_file *file);

// All groups and arrays, by path as strcmp() orders them; of the shards of a folder all together.
size_t nyb_keras_count(const nyb_keras_file *file);
const nyb_hdf5_item *nyb_keras_item_at(const nyb_keras_file *file, size_t index);
const nyb_hdf5_item *nyb_keras_find(const nyb_keras_file *file, const char *path);

// As nyb_hdf5_read().
NYB_NODISCARD nyb_status nyb_keras_read(nyb_keras_file *file, const char *path, nyb_tensor *out,
                                        nyb_err *err);

#endif // NYB_FORMATS_KERAS_FILE_H_
