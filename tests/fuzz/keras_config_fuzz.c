#include <stdio.h>
#include <stdlib.h>

#include "calib/keras_edit.h"
#include "tests/fuzz/fuzz.h"

static void edit_layers(nyb_keras_file *file, const nyb_keras_layers *layers, nyb_method method)
{
    nyb_settings settings = NYB_SETTINGS_DEFAULTS;
    settings.method = method;
    settings.group_size = 4;
    for (size_t i = 0; i < layers->count; i++) {
        nyb_arena arena = {0};
        nyb_keras_edit edit = {0};
        nyb_err err;
        if (nyb_keras_quantizes(layers->all[i], method))
            (void) !nyb_keras_edit_layer((nyb_keras_run){NULL, file}, layers->all[i], &settings,
                                         &arena, &edit, &err);
        json_decref(edit.quantization);
        nyb_arena_clear(&arena);
    }
}

static void put_kernel(nyb_hdf5_writer *to, const char *name, unsigned rank)
{
    static const float values[60];
    nyb_tensor kernel = {.name = name,
                         .dtype = NYB_F32,
                         .rank = rank,
                         .shape = {3, 4, 5},
                         .at = values,
                         .bytes = rank == 2 ? 48 : 240};
    if (nyb_hdf5_put(to, &kernel, NULL, NULL) != NYB_OK)
        abort();
}

// Weights under the names that the corpus' configurations lead to.
static const char *weights(void)
{
    static char path[160];
    nyb_hdf5_writer *to;
    if (*path)
        return path;
    (void) snprintf(path, sizeof(path), "%s/made.weights.h5",
                    fuzz_folder("made.weights.h5", NULL, 0));
    if (nyb_hdf5_create(&to, path, NULL) != NYB_OK)
        abort();
    put_kernel(to, "layers/dense/vars/0", 2);
    put_kernel(to, "layers/dense_1/vars/0", 2);
    put_kernel(to, "layers/einsum_dense/vars/0", 3);
    put_kernel(to, "layers/multi_head_attention/query_dense/vars/0", 3);
    put_kernel(to, "layers/multi_head_attention/output_dense/vars/0", 3);
    if (nyb_hdf5_finish(to, NULL) != NYB_OK)
        abort();
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_keras_file *file;
    nyb_keras_layers layers;
    nyb_err err;
    if (nyb_keras_open(&file, weights(), fuzz_file(bytes, length), &err) != NYB_OK)
        return 0;
    if (nyb_keras_layers_read(&layers, file, &err) == NYB_OK) {
        fuzz_accept();
        edit_layers(file, &layers, NYB_METHOD_INT8);
        edit_layers(file, &layers, NYB_METHOD_INT4);
        edit_layers(file, &layers, NYB_METHOD_RTN);
        nyb_keras_layers_clear(&layers);
    }
    nyb_keras_close(file);
    return 0;
}
