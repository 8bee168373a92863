// Arrays of the graph: room, axes, and files.
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "formats/npy.h"
#include "model/keras_op.h"

enum { EXACT_BITS = 24 }; // whole numbers up to 2^24 are floats

size_t nyb_array_count(const nyb_array *array)
{
    size_t count = 1; // nyb_array_init() has checked the product
    for (unsigned i = 0; i < array->rank; i++)
        count *= array->shape[i];
    return count;
}

nyb_status nyb_array_init(nyb_array *out, unsigned rank, const size_t *shape, const char *what,
                          nyb_err *err)
{
    size_t count = 1;
    bool fits = rank <= NYB_MAX_RANK;
    *out = (nyb_array){.rank = rank};
    for (unsigned i = 0; i < rank && fits; i++) {
        fits = nyb_mul_size(count, shape[i], &count);
        out->shape[i] = shape[i];
    }
    out->at = fits ? nyb_alloc_raw(count, sizeof(float)) : NULL;
    if (out->at)
        return NYB_OK;
    *out = (nyb_array){0};
    return nyb_no_memory(err, what, fits ? count : SIZE_MAX, sizeof(float));
}

void nyb_array_clear(nyb_array *array)
{
    nyb_free(array->at);
    *array = (nyb_array){0};
}

static bool is_order(const unsigned *order, unsigned rank)
{
    for (unsigned i = 0; i < rank; i++) {
        if (order[i] != i)
            return false;
    }
    return true;
}

void nyb_array_permute(nyb_array *out, const nyb_array *in, const unsigned *order)
{
    size_t step[NYB_MAX_RANK] = {0}, index[NYB_MAX_RANK] = {0}, from = 0;
    size_t stride = 1;
    for (unsigned i = in->rank; i-- > 0;) {
        for (unsigned j = 0; j < in->rank; j++)
            step[j] = order[j] == i ? stride : step[j];
        stride *= in->shape[i];
    }
    out->rank = in->rank;
    for (unsigned i = 0; i < in->rank; i++)
        out->shape[i] = in->shape[order[i]];
    const size_t count = nyb_array_count(in);
    if (is_order(order, in->rank)) {
        memcpy(out->at, in->at, count * sizeof(float));
        return;
    }
    for (size_t n = 0; n < count; n++) {
        out->at[n] = in->at[from];
        for (unsigned i = in->rank; i-- > 0;) {
            from += step[i];
            if (++index[i] < out->shape[i])
                break;
            from -= step[i] * index[i];
            index[i] = 0;
        }
    }
}

bool nyb_array_fits(const nyb_array *to, const nyb_array *with)
{
    if (with->rank > to->rank)
        return false;
    for (unsigned i = 0; i < with->rank; i++) {
        const size_t a = to->shape[to->rank - 1 - i], b = with->shape[with->rank - 1 - i];
        if (b != 1 && a != b)
            return false;
    }
    return true;
}

void nyb_array_combine(nyb_array *to, const nyb_array *with, nyb_array_op *op)
{
    size_t step[NYB_MAX_RANK] = {0}, index[NYB_MAX_RANK] = {0}, from = 0, stride = 1;
    const unsigned last = to->rank - 1, behind = to->rank - with->rank;
    for (unsigned i = with->rank; i-- > 0;) {
        step[behind + i] = with->shape[i] == 1 ? 0 : stride;
        stride *= with->shape[i];
    }
    const size_t width = to->shape[last], count = nyb_array_count(to);
    for (size_t n = 0; n < count; n += width) {
        op(to->at + n, with->at + from, step[last], width);
        for (unsigned i = last; i-- > 0;) {
            from += step[i];
            if (++index[i] < to->shape[i])
                break;
            from -= step[i] * index[i];
            index[i] = 0;
        }
    }
}

void nyb_array_add(float *to, const float *with, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += with[i * step];
}

void nyb_array_multiply(float *to, const float *with, size_t step, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] *= with[i * step];
}

// ---- Files ----------------------------------------------------------------------------------

static nyb_status check_finite(const nyb_array *a, const char *path, nyb_err *err)
{
    const size_t count = nyb_array_count(a);
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(a->at[i]))
            return nyb_fail(err, NYB_E_NUMERIC, "%s: value %zu is %g", path, i, (double) a->at[i]);
    }
    return NYB_OK;
}

static nyb_status read_integers(nyb_array *out, const nyb_tensor *t, const char *path, nyb_err *err)
{
    enum { PIECE = 1024 };
    int64_t piece[PIECE];
    const size_t count = nyb_array_count(out);
    for (size_t i = 0; i < count; i += PIECE) {
        const size_t n = count - i < PIECE ? count - i : PIECE;
        const nyb_status status = nyb_npy_integers(piece, t, i, n, err);
        if (status != NYB_OK)
            return status;
        for (size_t j = 0; j < n; j++) {
            if (piece[j] > 1 << EXACT_BITS || piece[j] < -(1 << EXACT_BITS))
                return nyb_fail(err, NYB_E_NUMERIC,
                                "%s: value %zu is %lld, and whole numbers are taken up to 2^%d",
                                path, i + j, (long long) piece[j], EXACT_BITS);
            out->at[i + j] = (float) piece[j];
        }
    }
    return NYB_OK;
}

static nyb_status read_values(nyb_array *out, const nyb_tensor *t, const char *path, nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (t->rank == 0)
        return nyb_fail(err, NYB_E_SHAPE, "%s: a single number, not an array of samples", path);
    status = nyb_array_init(out, t->rank, t->shape, path, err);
    if (status != NYB_OK)
        return status;
    if (t->dtype == NYB_F32 || t->dtype == NYB_F16 || t->dtype == NYB_F64) {
        status = nyb_npy_floats(out->at, t, 0, nyb_array_count(out), err);
        return status == NYB_OK ? check_finite(out, path, err) : status;
    }
    return read_integers(out, t, path, err);
}

nyb_status nyb_array_load(nyb_array *out, const char *path, nyb_err *err)
{
    nyb_npy file;
    *out = (nyb_array){0};
    nyb_status status = nyb_npy_open(&file, path, err);
    if (status == NYB_OK)
        status = read_values(out, &file.tensor, path, err);
    if (status != NYB_OK)
        nyb_array_clear(out);
    nyb_npy_close(&file);
    return status;
}
