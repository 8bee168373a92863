#include "calib/importance.h"

#include <math.h>
#include <string.h>

nyb_status nyb_importance_open(nyb_gguf *out, const char *path, nyb_err *err)
{
    nyb_gguf_text type = {"", 0};
    *out = (nyb_gguf){0};
    if (nyb_path_exists(path) && !nyb_gguf_named(path))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: is no GGUF file; of importance matrices only imatrix.gguf is read: "
                        "convert an older one with llama-imatrix --in-file FILE -o imatrix.gguf",
                        path);
    nyb_status status = nyb_gguf_open(out, path, err);
    if (status == NYB_OK)
        status = nyb_gguf_string(out, "general.type", &type, err);
    if (status == NYB_OK && (type.length != 7 || memcmp(type.at, "imatrix", 7) != 0))
        status = nyb_fail(err, NYB_E_FORMAT,
                          "%s: is no importance matrix: its 'general.type' is not 'imatrix'", path);
    if (status != NYB_OK) {
        nyb_gguf_close(out);
        *out = (nyb_gguf){0};
    }
    return status;
}

static const nyb_tensor *find(const nyb_gguf *file, const char *name, const char *suffix)
{
    const size_t length = strlen(name);
    for (size_t i = 0; i < file->count; i++) {
        const char *const has = file->tensors[i].name;
        if (strncmp(has, name, length) == 0 && strcmp(has + length, suffix) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

static size_t count_of(const nyb_tensor *t)
{
    size_t count = 1;
    for (unsigned i = 0; i < t->rank; i++)
        count *= t->shape[i]; // the tensor lies in the file, so this does not overflow
    return count;
}

static float value_at(const nyb_tensor *t, size_t index)
{
    float value;
    memcpy(&value, (const unsigned char *) t->at + index * sizeof(value), sizeof(value));
    return value;
}

// The mean squares of one slice. Inputs of an expert that no token was sent to count alike.
static nyb_status read_slice(float *out, const nyb_gguf *file, const nyb_tensor *sums,
                             const nyb_tensor *counts, size_t slice, size_t cols, nyb_err *err)
{
    const float tokens = value_at(counts, slice);
    for (size_t j = 0; j < cols; j++) {
        const float sum = value_at(sums, slice * cols + j);
        if (!(sum >= 0.0f && isfinite(sum) && tokens >= 0.0f && isfinite(tokens)))
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has a sum of %g over %g tokens",
                            file->path, sums->name, (double) sum, (double) tokens);
        out[j] = tokens > 0.0f ? sum / tokens : 1.0f;
    }
    return NYB_OK;
}

nyb_status nyb_importance_of(const float **out, const nyb_gguf *file, nyb_arena *arena,
                             const char *name, size_t slices, size_t cols, nyb_err *err)
{
    const nyb_tensor *const sums = find(file, name, ".in_sum2");
    const nyb_tensor *const counts = find(file, name, ".counts");
    *out = NULL;
    if (!sums && !counts)
        return NYB_OK;
    if (!sums || !counts || sums->dtype != NYB_F32 || counts->dtype != NYB_F32 ||
        count_of(sums) != slices * cols || count_of(counts) != slices)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: '%s' wants 'in_sum2' of %zu F32 numbers and 'counts' of %zu",
                        file->path, name, slices * cols, slices);
    float *const values = nyb_arena_alloc(arena, slices * cols, sizeof(*values));
    if (!values)
        return nyb_no_memory(err, "an importance matrix", slices * cols, sizeof(*values));
    bool any = false;
    for (size_t i = 0; i < slices; i++) {
        const nyb_status status = read_slice(values + i * cols, file, sums, counts, i, cols, err);
        if (status != NYB_OK)
            return status;
        any |= value_at(counts, i) > 0.0f;
    }
    float most = 0.0f;
    for (size_t k = 0; k < slices * cols; k++)
        most = values[k] > most ? values[k] : most;
    if (any && most > 0.0f)
        *out = values;
    return NYB_OK;
}
