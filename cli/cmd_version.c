#include <stdio.h>

#include "cli/command.h"
#include "nybble/version.h"

static nyb_exit print_json(const nyb_call *call, const nyb_build_info *info)
{
    json_t *const document = nyb_call_document(call);
    json_t *const features = json_array();
    const char *word = info->cpu_features;
    while (*word) {
        size_t length = 0;
        while (word[length] && word[length] != ' ')
            length++;
        (void) json_array_append_new(features, json_stringn(word, length));
        word += length + (word[length] == ' ');
    }
    (void) json_object_set_new(document, "version", json_string(info->version));
    (void) json_object_set_new(document, "compiler", json_string(info->compiler));
    (void) json_object_set_new(document, "build_type", json_string(info->build_type));
    (void) json_object_set_new(document, "cpu_features", features);
    (void) json_object_set_new(document, "cpus", json_integer(info->cpus));
    (void) json_object_set_new(document, "kernel_level", json_string(info->kernel_level));
    (void) json_object_set_new(document, "blas", json_string(info->blas));
    (void) json_object_set_new(document, "blas_core", json_string(info->blas_core));
    (void) json_object_set_new(document, "hdf5", json_string(info->hdf5));
    nyb_call_print_json(call, document);
    return NYB_EXIT_OK;
}

static nyb_exit run(const nyb_call *call)
{
    const nyb_build_info info = nyb_build();
    if (call->json)
        return print_json(call, &info);
    (void) printf("nybble %s\n", info.version);
    if (call->verbose == 0)
        return NYB_EXIT_OK;
    (void) printf("compiler      %s\n", info.compiler);
    (void) printf("build type    %s\n", info.build_type);
    (void) printf("CPU features  %s\n", info.cpu_features);
    (void) printf("CPUs          %u\n", info.cpus);
    (void) printf("kernel level  %s\n", info.kernel_level);
    (void) printf("BLAS          %s\n", info.blas);
    (void) printf("BLAS core     %s\n", info.blas_core);
    (void) printf("HDF5          %s\n", info.hdf5);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_version = {
    .name = "version",
    .about = "Prints the version, and with --verbose what a bug report needs",
    .examples = (const nyb_example[]){{"nybble version", "The version alone."},
                                      {"nybble version --verbose",
                                       "CPU features, kernels, libraries and build options too."},
                                      {0}},
    .run = run,
};
