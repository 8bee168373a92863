// version.h - what this build of nybble is and what it found on this machine.
#ifndef NYB_VERSION_H_
#define NYB_VERSION_H_

#include "nybble/status.h"

// "MAJOR.MINOR.PATCH"
NYB_API const char *nyb_version(void);

// Facts for a bug report. Strings are static.
typedef struct nyb_build_info {
    const char *version;
    const char *compiler;     // name and version
    const char *build_type;   // meson's buildtype, for example "release"
    const char *cpu_features; // the ones that select kernels, separated by spaces
    const char *kernel_level; // "portable", "avx2", "avx512", "avx512bf16"
    const char *blas;         // library and version
    const char *blas_core;    // the kernel set BLAS runs, for example "SkylakeX"
    const char *hdf5;         // version
    unsigned cpus;            // that this process may run on
} nyb_build_info;

NYB_API nyb_build_info nyb_build(void);

// The value of OPENBLAS_CORETYPE with which this process should have been started, because the
// kernels that OpenBLAS runs are not those that fit this CPU and could not be changed any more.
// NULL when all is well or the variable is set. Static.
NYB_API const char *nyb_blas_core_wanted(void);

#endif // NYB_VERSION_H_
