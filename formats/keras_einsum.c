#include "formats/keras_einsum.h"

#include <ctype.h>
#include <string.h>

enum { LABELS = 32 };

typedef struct parts {
    char input[LABELS], kernel[LABELS], output[LABELS];
} parts;

// ---- Reading the equation ---------------------------------------------------------------------

static const char *read_labels(const char *at, char *to)
{
    size_t n = 0;
    while (isalpha((unsigned char) *at) && n + 1 < LABELS)
        to[n++] = *at++;
    to[n] = '\0';
    return at;
}

static nyb_status split(parts *p, const char *equation, nyb_err *err)
{
    if (strstr(equation, "..."))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "Keras 3.15 fails on quantised layers with ... in their equation, as in "
                        "'%.60s'; leave such layers out by a recipe",
                        equation);
    const char *at = read_labels(equation, p->input);
    const bool comma = *at == ',';
    at = comma ? read_labels(at + 1, p->kernel) : at;
    const bool arrow = comma && strncmp(at, "->", 2) == 0;
    at = arrow ? read_labels(at + 2, p->output) : at;
    return arrow && !*at
               ? NYB_OK
               : nyb_fail(err, NYB_E_FORMAT, "'%.60s' is no equation of EinsumDense", equation);
}

// The lists below have room for letters that differ.
static bool has_twice(const char *labels)
{
    for (; *labels; labels++) {
        if (strchr(labels + 1, *labels))
            return true;
    }
    return false;
}

// ---- Keras' steps -----------------------------------------------------------------------------

typedef struct list {
    unsigned at[LABELS];
    size_t count;
} list;

static void insert(list *l, size_t index, unsigned value)
{
    index = index < l->count ? index : l->count;
    memmove(&l->at[index + 1], &l->at[index], (l->count - index) * sizeof(l->at[0]));
    l->at[index] = value;
    l->count++;
}

static unsigned take_first(list *l)
{
    const unsigned first = l->at[0];
    l->count--;
    memmove(&l->at[0], &l->at[1], l->count * sizeof(l->at[0]));
    return first;
}

static void remove_at(list *l, size_t index)
{
    l->count--;
    memmove(&l->at[index], &l->at[index + 1], (l->count - index) * sizeof(l->at[0]));
}

// The axes of the scales as stored: the kernel's in the output's order, each reduced axis in the
// place of an output's axis that the kernel lacks; more of those are added, more of the reduced
// ones taken away.
static bool arrange(nyb_keras_einsum *e, const parts *p)
{
    list expand = {0}, order = {0}, squeeze = {0}, stored;
    size_t index = 0;
    bool placed = false;
    for (unsigned i = 0; p->output[i]; i++) {
        const char *const found = strchr(p->kernel, p->output[i]);
        insert(found ? &order : &expand, LABELS, found ? (unsigned) (found - p->kernel) : i);
    }
    for (unsigned i = 0; i < e->kernel_rank; i++) {
        if (!e->reduced[i])
            continue;
        if (expand.count > 0) {
            index = take_first(&expand);
            placed = true;
        } else {
            insert(&squeeze, LABELS, i);
        }
        if (!placed || index > order.count)
            return false; // Keras itself fails then, or puts it where no axis is
        insert(&order, index, i);
    }
    if (order.count != e->kernel_rank)
        return false;
    stored = order;
    for (size_t i = 0; i < expand.count; i++)
        insert(&stored, expand.at[i], NYB_MAX_RANK);
    for (size_t i = squeeze.count; i-- > 0;) {
        const unsigned axis = squeeze.at[i] < stored.count ? stored.at[squeeze.at[i]] : 0;
        if (squeeze.at[i] >= stored.count || (axis < NYB_MAX_RANK && !e->reduced[axis]))
            return false;
        remove_at(&stored, squeeze.at[i]);
    }
    if (stored.count > NYB_MAX_RANK)
        return false;
    memcpy(e->order, order.at, order.count * sizeof(order.at[0]));
    memcpy(e->axis_of, stored.at, stored.count * sizeof(stored.at[0]));
    e->scale_rank = (unsigned) stored.count;
    return true;
}

nyb_status nyb_keras_einsum_read(nyb_keras_einsum *out, const char *equation, unsigned kernel_rank,
                                 nyb_err *err)
{
    parts p;
    *out = (nyb_keras_einsum){.kernel_rank = kernel_rank};
    const nyb_status status = split(&p, equation, err);
    if (status != NYB_OK)
        return status;
    if (has_twice(p.kernel) || has_twice(p.output))
        return nyb_fail(err, NYB_E_FORMAT, "'%.60s' gives two axes of one array the same letter",
                        equation);
    if (strlen(p.kernel) != kernel_rank || kernel_rank > NYB_MAX_RANK || kernel_rank == 0)
        return nyb_fail(err, NYB_E_FORMAT, "'%.60s' is for a kernel of %zu axes, this one has %u",
                        equation, strlen(p.kernel), kernel_rank);
    for (unsigned i = 0; i < kernel_rank; i++)
        out->reduced[i] = !strchr(p.output, p.kernel[i]);
    return arrange(out, &p) ? NYB_OK
                            : nyb_fail(err, NYB_E_UNSUPPORTED,
                                       "Keras has no place for the scales of '%.60s'", equation);
}

void nyb_keras_einsum_store(const nyb_keras_einsum *e, const nyb_tensor *kernel, const void *scales,
                            size_t size, void *to, nyb_tensor *shape)
{
    size_t from[NYB_MAX_RANK], at[NYB_MAX_RANK] = {0}, count = 1, place = 0;
    for (unsigned i = e->kernel_rank; i-- > 0;) {
        from[i] = e->reduced[i] ? 0 : count;
        count *= e->reduced[i] ? 1 : kernel->shape[i];
    }
    for (size_t k = 0; k < count; k++) {
        memcpy((unsigned char *) to + k * size, (const unsigned char *) scales + place * size,
               size);
        for (unsigned i = e->kernel_rank; i-- > 0;) {
            const unsigned axis = e->order[i];
            const size_t length = e->reduced[axis] ? 1 : kernel->shape[axis];
            place += from[axis];
            if (++at[i] < length)
                break;
            place -= from[axis] * length;
            at[i] = 0;
        }
    }
    shape->rank = e->scale_rank;
    for (unsigned i = 0; i < e->scale_rank; i++) {
        const unsigned axis = e->axis_of[i];
        shape->shape[i] = axis == NYB_MAX_RANK || e->reduced[axis] ? 1 : kernel->shape[axis];
    }
    shape->at = to;
    shape->bytes = count * size;
}

unsigned nyb_keras_gptq_inputs(unsigned rank, const size_t *shape)
{
    if (rank == 2)
        return 1;
    if (rank != 3)
        return 0;
    return shape[0] >= shape[1] && shape[0] >= shape[2] ? 1 : 2;
}
