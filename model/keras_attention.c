// MultiHeadAttention and GroupQueryAttention.
//
// Sources: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, equation 1; Ainslie et al.,
//          "GQA", arXiv:2305.13245.
#include <math.h>
#include <string.h>

#include "core/threads.h"
#include "kernels/vector.h"
#include "model/keras_op.h"

enum { ARG_QUERY, ARG_VALUE, ARG_KEY, ARG_QUERY_MASK, ARG_VALUE_MASK, ARG_KEY_MASK, ARG_MASK };

typedef struct attention {
    nyb_einsum *query, *key, *value, *output;
    nyb_einsum *gate; // NULL: none
    double scale;     // of the scores
    size_t window;    // keys on each side of a query, its own with them; 0: all
} attention;

// The part of the layer with this name.
static const nyb_keras_layer *part_of(const nyb_graph_opening *o, const char *name)
{
    const nyb_keras_layers *const tree = o->graph->source;
    for (size_t i = 0; i < tree->count; i++) {
        if (tree->all[i]->parent == o->layer->source && strcmp(tree->all[i]->name, name) == 0)
            return tree->all[i];
    }
    return NULL;
}

static nyb_status open_part(nyb_einsum **out, const nyb_graph_opening *o, const char *name,
                            const char *equation, bool biased, nyb_err *err)
{
    const nyb_keras_layer *const part = part_of(o, name);
    const unsigned stage = strcmp(name, "attention_output") == 0 ? 1 : 0;
    if (!part)
        return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err, "it has no part '%s'", name);
    return nyb_einsum_open(out, o, part, equation, biased, stage, err);
}

static nyb_status open_parts(const nyb_graph_opening *o, attention *a, nyb_err *err)
{
    static const char into[] = "btd,dhk->bthk", back[] = "bthk,hkd->btd";
    bool biased = true, gated = false;
    nyb_status status = nyb_graph_bool(o, "use_bias", &biased, err);
    if (status == NYB_OK)
        status = nyb_graph_bool(o, "use_gate", &gated, err);
    if (status == NYB_OK)
        status = open_part(&a->query, o, "query", into, biased, err);
    if (status == NYB_OK)
        status = open_part(&a->key, o, "key", into, biased, err);
    if (status == NYB_OK)
        status = open_part(&a->value, o, "value", into, biased, err);
    if (status == NYB_OK && gated)
        status = open_part(&a->gate, o, "gate", into, biased, err);
    return status == NYB_OK ? open_part(&a->output, o, "attention_output", back, biased, err)
                            : status;
}

static nyb_status check_parts(const nyb_graph_opening *o, const attention *a, nyb_err *err)
{
    const nyb_array *const q = nyb_einsum_kernel(a->query), *const k = nyb_einsum_kernel(a->key);
    const nyb_array *const v = nyb_einsum_kernel(a->value);
    const nyb_array *const out = nyb_einsum_kernel(a->output);
    const nyb_array *const g = a->gate ? nyb_einsum_kernel(a->gate) : NULL;
    const bool gates = !g || (g->shape[1] == q->shape[1] && g->shape[2] == v->shape[2]);
    if (q->shape[1] % k->shape[1] == 0 && k->shape[1] == v->shape[1] &&
        q->shape[2] == k->shape[2] && out->shape[0] == q->shape[1] &&
        out->shape[1] == v->shape[2] && gates)
        return NYB_OK;
    return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err,
                          "its kernels have %zu, %zu and %zu heads of %zu, %zu and %zu values, and "
                          "its output takes %zu of %zu",
                          q->shape[1], k->shape[1], v->shape[1], q->shape[2], k->shape[2],
                          v->shape[2], out->shape[0], out->shape[1]);
}

static nyb_status open_attention(const nyb_graph_opening *o, nyb_err *err)
{
    attention *const a = nyb_graph_self(o, sizeof(*a), err);
    const json_t *const shape = json_object_get(o->config, "output_shape");
    const json_t *const axes = json_object_get(o->config, "attention_axes");
    if (!a)
        return NYB_E_NOMEM;
    if (json_is_array(shape) && json_array_size(shape) != 1)
        return nyb_graph_fail(o->layer->source, NYB_E_UNSUPPORTED, err,
                              "its output_shape has %zu axes, and nybble takes one",
                              json_array_size(shape));
    if (json_is_array(axes) &&
        (json_array_size(axes) != 1 || json_integer_value(json_array_get(axes, 0)) != 1))
        return nyb_graph_fail(o->layer->source, NYB_E_UNSUPPORTED, err,
                              "its attention_axes are not the first alone");
    nyb_status status = nyb_graph_size(o, "sliding_window", &a->window, err);
    if (status == NYB_OK)
        status = open_parts(o, a, err);
    if (status == NYB_OK)
        status = check_parts(o, a, err);
    if (status == NYB_OK)
        a->scale = 1.0 / sqrt((double) nyb_einsum_kernel(a->query)->shape[2]);
    return status;
}

// ---- Running --------------------------------------------------------------------------------

// One head of one sample is a task.
typedef struct heads {
    const attention *layer;
    nyb_array q, k, v; // [samples, steps, heads, values]
    nyb_array gate;
    nyb_array out;         // [samples, queries, heads, values]
    const nyb_array *mask; // NULL: none
    size_t mask_step[4];   // of sample, head, query, key
    bool causal;
    float *scores; // [threads, keys]
    bool *blind;   // [tasks] a query sees no key
} heads;

static bool sees(const heads *h, size_t sample, size_t head, size_t query, size_t key)
{
    const size_t distance = query > key ? query - key : key - query;
    if ((h->causal && key > query) || (h->layer->window && distance >= h->layer->window))
        return false;
    const size_t *const s = h->mask_step;
    return !h->mask || h->mask->at[sample * s[0] + head * s[1] + query * s[2] + key * s[3]] != 0.0f;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double) a[i] * (double) b[i];
    return sum;
}

// Scores of all keys for one query, as probabilities. False: it sees none.
static bool score(const heads *h, size_t sample, size_t head, size_t query, float *scores)
{
    const size_t keys = h->k.shape[1], kv_heads = h->k.shape[2], dim = h->k.shape[3];
    const size_t kv = head / (h->q.shape[2] / kv_heads);
    const float *const q =
        h->q.at + ((sample * h->q.shape[1] + query) * h->q.shape[2] + head) * dim;
    float most = -INFINITY;
    for (size_t j = 0; j < keys; j++) {
        const float *const k = h->k.at + ((sample * keys + j) * kv_heads + kv) * dim;
        scores[j] = sees(h, sample, head, query, j) ? (float) (h->layer->scale * dot(q, k, dim))
                                                    : -INFINITY;
        most = scores[j] > most ? scores[j] : most;
    }
    double sum = 0.0;
    for (size_t j = 0; j < keys && most > -INFINITY; j++) {
        scores[j] = (float) exp((double) scores[j] - (double) most);
        sum += (double) scores[j];
    }
    for (size_t j = 0; j < keys && most > -INFINITY; j++)
        scores[j] = (float) ((double) scores[j] / sum);
    return most > -INFINITY;
}

static void attend(void *arg, size_t index, unsigned worker)
{
    const heads *const h = arg;
    const size_t count = h->q.shape[2], sample = index / count, head = index % count;
    const size_t keys = h->k.shape[1], kv_heads = h->v.shape[2], dim = h->v.shape[3];
    const size_t kv = head / (count / kv_heads), queries = h->q.shape[1];
    float *const scores = h->scores + worker * keys;
    for (size_t t = 0; t < queries; t++) {
        float *const out = h->out.at + ((sample * queries + t) * count + head) * dim;
        if (!score(h, sample, head, t, scores)) {
            h->blind[index] = true;
            continue;
        }
        memset(out, 0, dim * sizeof(*out));
        for (size_t j = 0; j < keys; j++)
            nyb_vector_ops_get()->add_scaled(
                out, h->v.at + ((sample * keys + j) * kv_heads + kv) * dim, scores[j], dim);
    }
}

static nyb_status run_heads(const nyb_graph_args *args, heads *h, nyb_err *err)
{
    const size_t tasks = h->q.shape[0] * h->q.shape[2], workers = nyb_threads(args->run->ctx);
    h->scores = nyb_alloc(workers * h->k.shape[1], sizeof(*h->scores));
    h->blind = nyb_alloc(tasks, sizeof(*h->blind));
    if (!h->scores || !h->blind)
        return nyb_no_memory(err, args->layer->source->scope, workers * h->k.shape[1],
                             sizeof(*h->scores));
    nyb_parallel(args->run->ctx, tasks, attend, h);
    for (size_t i = 0; i < tasks; i++) {
        if (h->blind[i])
            return nyb_graph_fail(args->layer->source, NYB_E_NUMERIC, err,
                                  "a query of sample %zu sees no key: the masks leave none",
                                  i / h->q.shape[2]);
    }
    if (h->layer->gate) {
        nyb_keras_function sigmoid = {0};
        (void) nyb_keras_function_named(&sigmoid, "sigmoid");
        nyb_keras_function_apply(args->run->ctx, &sigmoid, &h->gate);
        nyb_array_combine(&h->out, &h->gate, nyb_array_multiply);
    }
    return NYB_OK;
}

// The mask's axes, aligned with (sample, head, query, key) as Keras aligns them: what is missing is
// added in front of the queries' axis, and axes of 1 stand for all.
static nyb_status set_mask(const nyb_graph_args *args, heads *h, const nyb_array *mask,
                           nyb_err *err)
{
    const size_t full[4] = {h->q.shape[0], h->q.shape[2], h->q.shape[1], h->k.shape[1]};
    size_t shape[4] = {1, 1, 1, 1}, stride = 1;
    if (!mask)
        return NYB_OK;
    bool fits = mask->rank >= 2 && mask->rank <= 4;
    for (unsigned i = 0; fits && i < mask->rank; i++)
        shape[i + 2 < mask->rank ? i : i + 4 - mask->rank] = mask->shape[i];
    for (unsigned i = 0; i < 4; i++)
        fits = fits && (shape[i] == 1 || shape[i] == full[i]);
    if (!fits)
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its attention_mask does not fit %zu samples, %zu heads, %zu queries "
                              "and %zu keys",
                              full[0], full[1], full[2], full[3]);
    for (unsigned i = 4; i-- > 0;) {
        h->mask_step[i] = shape[i] == 1 ? 0 : stride;
        stride *= shape[i];
    }
    h->mask = mask;
    return NYB_OK;
}

static nyb_status check_inputs(const nyb_graph_args *args, nyb_err *err)
{
    const nyb_array *const q = args->in[ARG_QUERY], *const v = args->in[ARG_VALUE];
    const nyb_array *const k = args->in[ARG_KEY] ? args->in[ARG_KEY] : v;
    if (args->in[ARG_QUERY_MASK] || args->in[ARG_VALUE_MASK] || args->in[ARG_KEY_MASK])
        return nyb_graph_fail(
            args->layer->source, NYB_E_UNSUPPORTED, err,
            "it is called with masks of its query, value or key, and nybble takes "
            "attention_mask alone");
    if (q->rank != 3 || k->rank != 3 || v->rank != 3)
        return nyb_graph_fail(args->layer->source, NYB_E_UNSUPPORTED, err,
                              "its inputs have %u, %u and %u axes, and nybble takes 3", q->rank,
                              v->rank, k->rank);
    if (q->shape[0] != v->shape[0] || q->shape[0] != k->shape[0] || v->shape[1] != k->shape[1])
        return nyb_graph_fail(args->layer->source, NYB_E_SHAPE, err,
                              "its inputs have %zu, %zu and %zu samples, and its value and key "
                              "%zu and %zu steps",
                              q->shape[0], v->shape[0], k->shape[0], v->shape[1], k->shape[1]);
    return NYB_OK;
}

static nyb_status run_parts(const nyb_graph_args *args, heads *h, nyb_err *err)
{
    const attention *const a = h->layer;
    const nyb_array *const value = args->in[ARG_VALUE];
    const nyb_array *const key = args->in[ARG_KEY] ? args->in[ARG_KEY] : value;
    nyb_status status = nyb_einsum_run(args->run, a->query, args->in[ARG_QUERY], &h->q, err);
    if (status == NYB_OK)
        status = nyb_einsum_run(args->run, a->key, key, &h->k, err);
    if (status == NYB_OK)
        status = nyb_einsum_run(args->run, a->value, value, &h->v, err);
    if (status == NYB_OK && a->gate)
        status = nyb_einsum_run(args->run, a->gate, args->in[ARG_QUERY], &h->gate, err);
    if (status == NYB_OK)
        status = set_mask(args, h, args->in[ARG_MASK], err);
    const size_t shape[4] = {h->q.shape[0], h->q.shape[1], h->q.shape[2], h->v.shape[3]};
    if (status == NYB_OK)
        status = nyb_array_init(&h->out, 4, shape, args->layer->source->scope, err);
    if (status == NYB_OK)
        status = run_heads(args, h, err);
    return status == NYB_OK ? nyb_einsum_run(args->run, a->output, &h->out, args->out, err)
                            : status;
}

static nyb_status run_attention(const nyb_graph_args *args, nyb_err *err)
{
    heads h = {.layer = args->layer->self, .causal = args->options->causal};
    nyb_status status = check_inputs(args, err);
    if (status == NYB_OK)
        status = run_parts(args, &h, err);
    nyb_array_clear(&h.q);
    nyb_array_clear(&h.k);
    nyb_array_clear(&h.v);
    nyb_array_clear(&h.gate);
    nyb_array_clear(&h.out);
    nyb_free(h.scores);
    nyb_free(h.blind);
    return status;
}

static const char *const slots[] = {"query",    "value",          "key", "query_mask", "value_mask",
                                    "key_mask", "attention_mask", NULL};

const nyb_graph_op nyb_graph_op_mha = {.class_name = "MultiHeadAttention",
                                       .slots = slots,
                                       .required = 2,
                                       .open = open_attention,
                                       .run = run_attention};
const nyb_graph_op nyb_graph_op_gqa = {.class_name = "GroupQueryAttention",
                                       .slots = slots,
                                       .required = 2,
                                       .open = open_attention,
                                       .run = run_attention};
