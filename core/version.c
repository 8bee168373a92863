#include "nybble/version.h"

#include <stdio.h>

#include "core/build.h"
#include "core/cpu.h"
#include "core/linalg.h"
#include "core/threads.h"

const char *nyb_version(void)
{
    return NYB_VERSION;
}

nyb_build_info nyb_build(void)
{
    const unsigned features = nyb_cpu();
    return (nyb_build_info){
        .version = NYB_VERSION,
        .compiler = NYB_COMPILER,
        .build_type = NYB_BUILD_TYPE,
        .cpu_features = nyb_cpu_words(nyb_cpu_detected()),
        .kernel_level = nyb_cpu_level(features),
        .blas = nyb_blas_name(),
        .blas_core = nyb_blas_core(),
        .hdf5 = NYB_HDF5,
        .cpus = nyb_threads(NULL),
    };
}
