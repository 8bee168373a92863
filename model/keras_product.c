// EinsumDense: a product over some axes of the input and the kernel. The input's axes are brought into
// the order (kept, summed), the kernel's into (summed, its own), and the matrix that comes out
// back into the order of the equation.
#include <string.h>

#include "model/keras_op.h"

enum { MOST_NAMES = 32, ELLIPSIS = 128 }; // ELLIPSIS + i: the i-th axis that "..." stands for

// The axes of one side, by name.
typedef struct axes {
    unsigned char name[MOST_NAMES];
    unsigned count;
    int dots; // where "..." stands; -1: nowhere
} axes;

struct nyb_einsum {
    const nyb_keras_layer *layer;
    const char *equation;
    axes in, kernel, out;
    nyb_array weight; // as the file has it
    nyb_graph_linear *linear;
    nyb_array bias; // aligned with the last axes of the output; `at` NULL: none
};

static int place_of(const axes *a, unsigned char name)
{
    for (unsigned i = 0; i < a->count; i++) {
        if (a->name[i] == name)
            return (int) i;
    }
    return -1;
}

static nyb_status bad(const nyb_einsum *e, const char *why, nyb_err *err)
{
    return nyb_graph_fail(e->layer, NYB_E_UNSUPPORTED, err, "its equation '%s' %s", e->equation,
                          why);
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Reads names up to one of the characters in `end`; *text moves there.
static nyb_status read_axes(const nyb_einsum *e, axes *out, const char **text, const char *end,
                            nyb_err *err)
{
    *out = (axes){.dots = -1};
    while (**text && !strchr(end, **text)) {
        const char c = **text;
        if (strncmp(*text, "...", 3) == 0 && out->dots < 0) {
            out->dots = (int) out->count;
            *text += 3;
            continue;
        }
        if (c != ' ' && (!is_letter(c) || out->count == NYB_MAX_RANK))
            return bad(e, "is not one of letters, '...', ',' and '->'", err);
        if (c != ' ' && place_of(out, (unsigned char) c) >= 0)
            return bad(e, "has an axis twice on one side", err);
        if (c != ' ')
            out->name[out->count++] = (unsigned char) c;
        *text += 1;
    }
    return NYB_OK;
}

// Every axis of the input is kept or summed over; every axis of the kernel is summed over or its
// own.
static nyb_status check_axes(const nyb_einsum *e, nyb_err *err)
{
    if (e->kernel.dots >= 0 || (e->in.dots < 0) != (e->out.dots < 0))
        return bad(e, "has '...' elsewhere than in the input and the output", err);
    for (unsigned i = 0; i < e->in.count; i++) {
        const bool kept = place_of(&e->out, e->in.name[i]) >= 0;
        const bool met = place_of(&e->kernel, e->in.name[i]) >= 0;
        if (kept == met)
            return bad(e,
                       kept ? "keeps an axis that the kernel has too, which is no matrix product"
                            : "sums over an axis that the kernel does not have",
                       err);
    }
    for (unsigned i = 0; i < e->kernel.count; i++) {
        const bool own = place_of(&e->out, e->kernel.name[i]) >= 0;
        if (!own && place_of(&e->in, e->kernel.name[i]) < 0)
            return bad(e, "sums over an axis that the input does not have", err);
    }
    for (unsigned i = 0; i < e->out.count; i++) {
        if (place_of(&e->in, e->out.name[i]) < 0 && place_of(&e->kernel, e->out.name[i]) < 0)
            return bad(e, "has an axis in the output alone", err);
    }
    return NYB_OK;
}

static nyb_status read_equation(nyb_einsum *e, nyb_err *err)
{
    const char *text = e->equation;
    nyb_status status = read_axes(e, &e->in, &text, ",", err);
    if (status == NYB_OK && *text++ != ',')
        return bad(e, "has no ','", err);
    if (status == NYB_OK)
        status = read_axes(e, &e->kernel, &text, "-", err);
    if (status == NYB_OK && strncmp(text, "->", 2) != 0)
        return bad(e, "has no '->'", err);
    text += 2;
    if (status == NYB_OK)
        status = read_axes(e, &e->out, &text, "", err);
    return status == NYB_OK ? check_axes(e, err) : status;
}

static bool is_summed(const nyb_einsum *e, unsigned kernel_axis)
{
    return place_of(&e->out, e->kernel.name[kernel_axis]) < 0;
}

// The kernel's axes, those summed over first; true when the file has them in that order.
static bool kernel_order(const nyb_einsum *e, unsigned order[NYB_MAX_RANK])
{
    unsigned n = 0;
    bool plain = true;
    for (unsigned i = 0; i < e->kernel.count; i++) {
        if (is_summed(e, i))
            order[n++] = i;
    }
    for (unsigned i = 0; i < e->kernel.count; i++) {
        if (!is_summed(e, i))
            order[n++] = i;
    }
    for (unsigned i = 0; i < n; i++)
        plain = plain && order[i] == i;
    return plain;
}

static nyb_status open_kernel(nyb_einsum *e, const nyb_graph_opening *o, unsigned stage,
                              nyb_err *err)
{
    unsigned order[NYB_MAX_RANK] = {0};
    size_t in = 1;
    nyb_status status = nyb_graph_variable(o->graph, e->layer, 0, &e->weight, err);
    if (status != NYB_OK)
        return status;
    if (e->weight.rank != e->kernel.count)
        return nyb_graph_fail(e->layer, NYB_E_FORMAT, err,
                              "its kernel has %u axes, its equation '%s' names %u", e->weight.rank,
                              e->equation, e->kernel.count);
    for (unsigned i = 0; i < e->weight.rank; i++)
        in *= is_summed(e, i) ? e->weight.shape[i] : 1;
    status = nyb_graph_add_linear(o, e->layer, &e->weight, in, stage, &e->linear, err);
    if (status != NYB_OK)
        return status;
    e->linear->plain = kernel_order(e, order);
    if (e->linear->plain)
        return NYB_OK;
    const nyb_mat m = nyb_arena_mat(&o->graph->arena, in, e->linear->out);
    nyb_array turned = {.at = m.at};
    if (!m.at)
        return nyb_no_memory(err, e->layer->scope, in, e->linear->out * sizeof(float));
    nyb_array_permute(&turned, &e->weight, order);
    e->linear->kernel = m.at;
    return NYB_OK;
}

nyb_status nyb_einsum_open(nyb_einsum **out, const nyb_graph_opening *o,
                           const nyb_keras_layer *layer, const char *equation, bool biased,
                           unsigned stage, nyb_err *err)
{
    nyb_einsum *const e = nyb_arena_alloc(&o->graph->arena, 1, sizeof(*e));
    if (!e)
        return nyb_no_memory(err, layer->scope, 1, sizeof(*e));
    *out = e;
    e->layer = layer;
    e->equation = equation;
    nyb_status status = read_equation(e, err);
    if (status == NYB_OK)
        status = open_kernel(e, o, stage, err);
    if (status == NYB_OK && biased)
        status = nyb_graph_variable(o->graph, layer, 1, &e->bias, err);
    return status;
}

const nyb_array *nyb_einsum_kernel(const nyb_einsum *e)
{
    return &e->weight;
}

// ---- Running --------------------------------------------------------------------------------

// One call: the axes of its input and output, with what "..." stands for.
typedef struct layout {
    axes in, out;
    unsigned to_matrix[NYB_MAX_RANK];   // the input's axes: kept, then summed in the kernel's order
    unsigned from_matrix[NYB_MAX_RANK]; // where the output's axes are in (kept, the kernel's own)
    nyb_array result;                   // shape of (kept, the kernel's own)
    size_t rows;
} layout;

// The names with those of the axes that "..." stands for.
static void expand(axes *out, const axes *a, unsigned dots)
{
    *out = (axes){.dots = -1};
    for (unsigned i = 0; i <= a->count; i++) {
        for (unsigned d = 0; a->dots == (int) i && d < dots; d++)
            out->name[out->count++] = (unsigned char) (ELLIPSIS + d);
        if (i < a->count)
            out->name[out->count++] = a->name[i];
    }
}

static nyb_status check_sizes(const nyb_einsum *e, const layout *l, const nyb_array *in,
                              nyb_err *err)
{
    for (unsigned i = 0; i < l->in.count; i++) {
        const int k = place_of(&e->kernel, l->in.name[i]);
        if (k >= 0 && in->shape[i] != e->weight.shape[k])
            return nyb_graph_fail(e->layer, NYB_E_SHAPE, err,
                                  "axis %u of its input is %zu, axis %d of its kernel %zu", i,
                                  in->shape[i], k, e->weight.shape[k]);
    }
    return NYB_OK;
}

static nyb_status lay_out(const nyb_einsum *e, const nyb_array *in, layout *l, nyb_err *err)
{
    axes made = {.dots = -1}; // (kept, the kernel's own)
    unsigned n = 0;
    *l = (layout){.rows = 1};
    if (in->rank < e->in.count || (e->in.dots < 0 && in->rank != e->in.count) ||
        in->rank - e->in.count + e->out.count > NYB_MAX_RANK)
        return nyb_graph_fail(e->layer, NYB_E_SHAPE, err,
                              "its input has %u axes, which its equation '%s' does not take",
                              in->rank, e->equation);
    expand(&l->in, &e->in, in->rank - e->in.count);
    expand(&l->out, &e->out, in->rank - e->in.count);
    const nyb_status status = check_sizes(e, l, in, err);
    if (status != NYB_OK)
        return status;
    for (unsigned i = 0; i < l->in.count; i++) {
        if (place_of(&e->kernel, l->in.name[i]) >= 0)
            continue;
        l->to_matrix[n++] = i;
        l->result.shape[made.count] = in->shape[i];
        made.name[made.count++] = l->in.name[i];
        l->rows *= in->shape[i];
    }
    for (unsigned k = 0; k < e->kernel.count; k++) {
        if (is_summed(e, k)) {
            l->to_matrix[n++] = (unsigned) place_of(&l->in, e->kernel.name[k]);
        } else {
            l->result.shape[made.count] = e->weight.shape[k];
            made.name[made.count++] = e->kernel.name[k];
        }
    }
    l->result.rank = made.count;
    for (unsigned i = 0; i < l->out.count; i++)
        l->from_matrix[i] = (unsigned) place_of(&made, l->out.name[i]);
    if (l->to_matrix[0] != 0 || l->from_matrix[0] != 0 || place_of(&l->out, l->in.name[0]) != 0)
        return bad(e, "does not keep the samples' axis in front", err);
    return NYB_OK;
}

nyb_status nyb_einsum_run(const nyb_graph_run *run, const nyb_einsum *e, const nyb_array *in,
                          nyb_array *out, nyb_err *err)
{
    nyb_array x = {0}, y = {0};
    layout l;
    nyb_status status = lay_out(e, in, &l, err);
    if (status == NYB_OK)
        status = nyb_array_init(&x, in->rank, in->shape, e->layer->scope, err);
    if (status == NYB_OK)
        status = nyb_array_init(&y, l.result.rank, l.result.shape, e->layer->scope, err);
    if (status == NYB_OK)
        status = nyb_array_init(out, l.result.rank, l.result.shape, e->layer->scope, err);
    if (status == NYB_OK) {
        nyb_array_permute(&x, in, l.to_matrix);
        status = nyb_graph_multiply(run, e->linear, nyb_mat_of(x.at, l.rows, e->linear->in),
                                    nyb_mat_of(y.at, l.rows, e->linear->out), err);
    }
    if (status == NYB_OK) {
        nyb_array_permute(out, &y, l.from_matrix);
        if (e->bias.at && !nyb_array_fits(out, &e->bias))
            status = nyb_graph_fail(e->layer, NYB_E_SHAPE, err, "its bias does not fit its output");
        else if (e->bias.at)
            nyb_array_combine(out, &e->bias, nyb_array_add);
    }
    nyb_array_clear(&x);
    nyb_array_clear(&y);
    return status;
}
