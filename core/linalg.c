#define _GNU_SOURCE // RTLD_DEFAULT
#include "core/linalg.h"

#include <assert.h>
#include <cblas.h>
#include <dlfcn.h>
#include <lapacke.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu.h"
#include "nybble/version.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char blas_name[128];

// The kernel set that OpenBLAS should run on a CPU with these features, NULL: its own choice.
static const char *wanted_core(unsigned cpu)
{
    if (cpu & NYB_CPU_AVX512BF16)
        return "Cooperlake";
    return cpu & NYB_CPU_AVX512 ? "SkylakeX" : NULL;
}

static bool knows_avx512(const char *core)
{
    static const char *const cores[] = {"SkylakeX", "Cooperlake", "Sapphirerapids"};
    for (size_t i = 0; i < sizeof(cores) / sizeof(cores[0]); i++) {
        if (strcasecmp(core, cores[i]) == 0)
            return true;
    }
    return false;
}

// OpenBLAS has no call for choosing a kernel set, but it reads OPENBLAS_CORETYPE whenever its
// dispatch table is set up, and the two functions that tear it down and set it up are exported.
static void choose_core(const char *core)
{
    void (*quit)(void) = NULL;
    void (*init)(void) = NULL;
    *(void **) &quit = dlsym(RTLD_DEFAULT, "gotoblas_dynamic_quit");
    *(void **) &init = dlsym(RTLD_DEFAULT, "gotoblas_dynamic_init");
    if (!quit || !init || setenv("OPENBLAS_CORETYPE", core, 1) != 0)
        return;
    quit();
    init();
    (void) unsetenv("OPENBLAS_CORETYPE"); // programs that the caller starts choose for themselves
}

static void init_once(void)
{
    const char *const core = wanted_core(nyb_cpu_detected());
    if (core && !getenv("OPENBLAS_CORETYPE") && !knows_avx512(openblas_get_corename()))
        choose_core(core);
    openblas_set_num_threads(1);

    // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ...": the first two words are of use.
    const char *const config = openblas_get_config();
    const char *const space = strchr(config, ' ');
    const char *const end = space ? strchr(space + 1, ' ') : NULL;
    (void) snprintf(blas_name, sizeof(blas_name), "%.*s",
                    end ? (int) (end - config) : (int) strlen(config), config);
}

void nyb_blas_init(void)
{
    (void) pthread_once(&once, init_once);
}

const char *nyb_blas_name(void)
{
    nyb_blas_init();
    return blas_name;
}

const char *nyb_blas_core(void)
{
    nyb_blas_init();
    return openblas_get_corename();
}

const char *nyb_blas_core_wanted(void)
{
    const char *const core = wanted_core(nyb_cpu_detected());
    nyb_blas_init();
    return core && !getenv("OPENBLAS_CORETYPE") && !knows_avx512(openblas_get_corename()) ? core
                                                                                          : NULL;
}

// BLAS counts in int. Matrices of one layer stay far below; a caller that does not is ours.
static int as_int(size_t n)
{
    assert(n <= INT_MAX);
    return (int) n;
}

void nyb_gemm_nt(nyb_mat c, nyb_mat a, nyb_mat b, float alpha, float beta)
{
    assert(a.rows == c.rows && b.rows == c.cols && a.cols == b.cols);
    nyb_blas_init();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_int(c.rows), as_int(c.cols),
                as_int(a.cols), alpha, a.at, as_int(a.stride), b.at, as_int(b.stride), beta, c.at,
                as_int(c.stride));
}

void nyb_gemm_nn(nyb_mat c, nyb_mat a, nyb_mat b, float alpha, float beta)
{
    assert(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows);
    nyb_blas_init();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(c.rows), as_int(c.cols),
                as_int(a.cols), alpha, a.at, as_int(a.stride), b.at, as_int(b.stride), beta, c.at,
                as_int(c.stride));
}

void nyb_gemm_tn(nyb_mat c, nyb_mat a, nyb_mat b, float alpha, float beta)
{
    assert(a.cols == c.rows && b.cols == c.cols && a.rows == b.rows);
    nyb_blas_init();
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(c.rows), as_int(c.cols),
                as_int(a.rows), alpha, a.at, as_int(a.stride), b.at, as_int(b.stride), beta, c.at,
                as_int(c.stride));
}

void nyb_gemv(float *y, nyb_mat a, const float *x)
{
    nyb_blas_init();
    cblas_sgemv(CblasRowMajor, CblasNoTrans, as_int(a.rows), as_int(a.cols), 1.0f, a.at,
                as_int(a.stride), x, 1, 0.0f, y, 1);
}

void nyb_syrk_t(nyb_mat c, nyb_mat a)
{
    assert(c.rows == c.cols && a.cols == c.cols);
    nyb_blas_init();
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, as_int(c.rows), as_int(a.rows), 1.0f, a.at,
                as_int(a.stride), 1.0f, c.at, as_int(c.stride));
}

void nyb_trsm_right(nyb_mat x, nyb_mat v)
{
    assert(v.rows == v.cols && x.cols == v.rows);
    nyb_blas_init();
    cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, as_int(x.rows),
                as_int(x.cols), 1.0f, v.at, as_int(v.stride), x.at, as_int(x.stride));
}

void nyb_trmm_left(nyb_mat x, nyb_mat u)
{
    assert(u.rows == u.cols && x.rows == u.cols);
    nyb_blas_init();
    cblas_strmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, as_int(x.rows),
                as_int(x.cols), -1.0f, u.at, as_int(u.stride), x.at, as_int(x.stride));
}

// A row-major lower triangle is LAPACK's column-major upper one and the other way round, so
// nothing is transposed.
size_t nyb_cholesky(nyb_mat a)
{
    assert(a.rows == a.cols);
    nyb_blas_init();
    const lapack_int info =
        LAPACKE_spotrf_work(LAPACK_COL_MAJOR, 'U', as_int(a.rows), a.at, as_int(a.stride));
    assert(info >= 0);
    return (size_t) info;
}

void nyb_invert_upper(nyb_mat v)
{
    assert(v.rows == v.cols);
    nyb_blas_init();
    const lapack_int info =
        LAPACKE_strtri_work(LAPACK_COL_MAJOR, 'L', 'N', as_int(v.rows), v.at, as_int(v.stride));
    assert(info == 0);
    (void) info;
}
