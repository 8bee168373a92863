// keras_parts.h - what an open Keras checkpoint consists of. Seen by formats/keras_*.c alone.
#ifndef NYB_FORMATS_KERAS_PARTS_H_
#define NYB_FORMATS_KERAS_PARTS_H_

#include "formats/archive.h"
#include "formats/keras_file.h"

#define NYB_KERAS_WEIGHTS_NAME "model.weights.h5"
#define NYB_KERAS_MAP_NAME     "model.weights.json"

enum { NYB_KERAS_SHARDS = 1000 };

typedef struct nyb_keras_store {
    const char *name; // "model_00000.weights.h5"
    nyb_hdf5 *file;
} nyb_keras_store;

typedef struct nyb_keras_item {
    const nyb_hdf5_item *item;
    size_t store; // the first that has it
} nyb_keras_item;

struct nyb_keras_file {
    nyb_arena arena;
    const char *path;
    nyb_keras_kind kind;
    json_t *config;
    nyb_archive *archive;
    int extracted; // the archive's weights in a file without a name; -1: none
    nyb_keras_store stores[NYB_KERAS_SHARDS];
    size_t store_count;
    nyb_keras_item *items; // by path
    size_t count;
};

#endif // NYB_FORMATS_KERAS_PARTS_H_
