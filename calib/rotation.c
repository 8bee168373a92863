#include "calib/rotation.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"

// Rows of `a` become orthonormal (Gram-Schmidt; twice is enough).
static void orthonormalize(double *a, size_t m)
{
    for (size_t i = 0; i < m; i++) {
        double *const row = a + i * m;
        for (size_t pass = 0; pass < 2; pass++) {
            for (size_t k = 0; k < i; k++) {
                const double *const done = a + k * m;
                double dot = 0.0;
                for (size_t j = 0; j < m; j++)
                    dot += row[j] * done[j];
                for (size_t j = 0; j < m; j++)
                    row[j] -= dot * done[j];
            }
            double square = 0.0;
            for (size_t j = 0; j < m; j++)
                square += row[j] * row[j];
            const double length = sqrt(square);
            for (size_t j = 0; j < m; j++)
                row[j] /= length;
        }
    }
}

nyb_status nyb_rotation_make(nyb_rotation *out, size_t n, uint64_t seed, nyb_err *err)
{
    const size_t p = n & (~n + 1), m = n / p;
    uint64_t state = seed;
    *out = (nyb_rotation){.n = n, .p = p, .m = m};
    out->signs = nyb_alloc(n, sizeof(double));
    out->rest = nyb_alloc(m, m * sizeof(double));
    if (!out->signs || !out->rest) {
        nyb_rotation_clear(out);
        return nyb_no_memory(err, "a rotation", n + m * m, sizeof(double));
    }
    for (size_t i = 0; i < n; i++)
        out->signs[i] = nyb_random_u64(&state) >> 63 ? -1.0 : 1.0;
    for (size_t i = 0; i < m * m; i++)
        out->rest[i] = 2.0 * nyb_random_unit(&state) - 1.0;
    orthonormalize(out->rest, m);
    return NYB_OK;
}

void nyb_rotation_clear(nyb_rotation *rotation)
{
    nyb_free(rotation->signs);
    nyb_free(rotation->rest);
    *rotation = (nyb_rotation){0};
}

// The Hadamard transform of order p over the first index of x [p, m].
static void transform(double *x, size_t p, size_t m)
{
    for (size_t half = 1; half < p; half *= 2) {
        for (size_t first = 0; first < p; first += 2 * half) {
            for (size_t i = first * m; i < (first + half) * m; i++) {
                const double a = x[i], b = x[i + half * m];
                x[i] = a + b;
                x[i + half * m] = a - b;
            }
        }
    }
}

void nyb_rotation_apply(const nyb_rotation *r, double *x, double *scratch)
{
    const double scale = 1.0 / sqrt((double) r->p);
    for (size_t i = 0; i < r->n; i++)
        x[i] *= r->signs[i] * scale;
    transform(x, r->p, r->m);
    for (size_t i = 0; r->m > 1 && i < r->n; i += r->m) {
        memset(scratch, 0, r->m * sizeof(*scratch));
        for (size_t k = 0; k < r->m; k++) {
            for (size_t j = 0; j < r->m; j++)
                scratch[j] += x[i + k] * r->rest[k * r->m + j];
        }
        memcpy(x + i, scratch, r->m * sizeof(*scratch));
    }
}
