#include "formats/keras_names.h"

#include <ctype.h>
#include <string.h>

// ---- Class names ----------------------------------------------------------------------------

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

// Puts _ before a capital that small letters follow, unless it is the first of what is left.
static void split_words(char *to, const char *from)
{
    while (*from) {
        *to++ = *from++;
        if (!is_upper(from[0]) || !is_lower(from[1]))
            continue;
        *to++ = '_';
        *to++ = *from++;
        while (is_lower(*from))
            *to++ = *from++;
    }
    *to = '\0';
}

// Puts _ between a small letter and a capital, which may not be the end of another such pair.
static void split_pairs(char *to, const char *from)
{
    while (*from) {
        *to++ = *from++;
        if (is_lower(from[-1]) && is_upper(from[0])) {
            *to++ = '_';
            *to++ = *from++;
        }
    }
    *to = '\0';
}

char *nyb_keras_snake_case(nyb_arena *arena, const char *class_name)
{
    const size_t length = strlen(class_name);
    char *const words = nyb_arena_alloc(arena, 2 * length + 2, 1);
    char *const plain = nyb_arena_alloc(arena, length + 1, 1);
    char *const pairs = nyb_arena_alloc(arena, 4 * length + 4, 1);
    if (!words || !plain || !pairs)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (isalnum((unsigned char) class_name[i]) || class_name[i] == '_' ||
            (unsigned char) class_name[i] >= 0x80)
            plain[n++] = class_name[i];
    }
    split_words(words, plain);
    split_pairs(pairs, words);
    for (char *c = pairs; *c; c++)
        *c = is_upper(*c) ? (char) (*c - 'A' + 'a') : *c;
    return pairs;
}

char *nyb_keras_counter_next(nyb_keras_counter *counter, nyb_arena *arena, const char *class_name)
{
    // The one class that Keras exports under another name than its own.
    const bool grouped = strcmp(class_name, "GroupQueryAttention") == 0;
    char *const base = nyb_keras_snake_case(arena, grouped ? "GroupedQueryAttention" : class_name);
    if (!counter->used)
        counter->used = json_object();
    if (!base || !counter->used)
        return NULL;
    const json_t *const before = json_object_get(counter->used, base);
    const json_int_t count = before ? json_integer_value(before) + 1 : 0;
    if (json_object_set_new(counter->used, base, json_integer(count)) != 0)
        return NULL;
    return count == 0 ? base : nyb_arena_format(arena, "%s_%lld", base, (long long) count);
}

void nyb_keras_counter_clear(nyb_keras_counter *counter)
{
    json_decref(counter->used);
    counter->used = NULL;
}

char *nyb_keras_variable_path(nyb_arena *arena, const char *place, const char *number)
{
    return nyb_arena_format(arena, "%s%svars/%s", place, *place ? "/" : "", number);
}

char *nyb_keras_child_place(const nyb_keras_file *file, nyb_arena *arena, const char *place,
                            const char *attribute)
{
    static const char *const marks[] = {"", "_"};
    for (size_t i = 0; i < 2; i++) {
        char *const child =
            nyb_arena_format(arena, "%s%s%s%s", place, *place ? "/" : "", marks[i], attribute);
        const nyb_hdf5_item *const item = child ? nyb_keras_find(file, child) : NULL;
        if (item && item->is_group)
            return child;
    }
    return NULL;
}

// ---- Sublayers ------------------------------------------------------------------------------

static size_t rank_of(const nyb_keras_layer *layer, const char *key)
{
    const json_t *const build = json_object_get(layer->object, "build_config");
    const json_t *const shapes = json_object_get(build, "shapes_dict");
    const json_t *const shape = json_object_get(shapes ? shapes : build, key);
    return json_is_array(shape) ? json_array_size(shape) : 3; // what nearly all models have
}

static size_t query_rank(const nyb_keras_layer *layer)
{
    return rank_of(layer, "query_shape");
}

static size_t value_rank(const nyb_keras_layer *layer)
{
    return rank_of(layer, "value_shape");
}

static size_t key_rank(const nyb_keras_layer *layer)
{
    const json_t *const build = json_object_get(layer->object, "build_config");
    const bool own =
        json_is_array(json_object_get(json_object_get(build, "shapes_dict"), "key_shape"));
    return own ? rank_of(layer, "key_shape") : value_rank(layer);
}

// The output projection sees heads and their width where the query has its width.
static size_t output_rank(const nyb_keras_layer *layer)
{
    return query_rank(layer) + 1;
}

static const nyb_keras_sublayer multi_head[] = {
    {"query_dense", "query", "EinsumDense", NULL, query_rank},
    {"key_dense", "key", "EinsumDense", NULL, key_rank},
    {"gate_dense", "gate", "EinsumDense", NULL, query_rank},
    {"value_dense", "value", "EinsumDense", NULL, value_rank},
    {"output_dense", "attention_output", "EinsumDense", NULL, output_rank},
    {0},
};

static const nyb_keras_sublayer grouped_query[] = {
    {"query_dense", "query", "EinsumDense", "bqm,muh->bquh", query_rank},
    {"key_dense", "key", "EinsumDense", "bkm,mvh->bkvh", key_rank},
    {"gate_dense", "gate", "EinsumDense", "bqm,muh->bquh", query_rank},
    {"value_dense", "value", "EinsumDense", "bkm,mvh->bkvh", value_rank},
    {"output_dense", "attention_output", "EinsumDense", "bquh,uhm->bqm", output_rank},
    {0},
};

static const struct {
    const char *class_name;
    const nyb_keras_sublayer *sublayers;
} composites[] = {
    {"MultiHeadAttention", multi_head},
    {"GroupedQueryAttention", grouped_query},
    {"GroupQueryAttention", grouped_query},
};

const nyb_keras_sublayer *nyb_keras_sublayers(const char *class_name)
{
    for (size_t i = 0; i < sizeof(composites) / sizeof(composites[0]); i++) {
        if (strcmp(composites[i].class_name, class_name) == 0)
            return composites[i].sublayers;
    }
    return NULL;
}

// Keras letters the axes in their order: those that stay, those that are summed over, those that
// are new.
static const char *projection(nyb_arena *arena, size_t kept, size_t summed, size_t made)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    if (kept + summed + made >= sizeof(letters))
        return NULL;
    return nyb_arena_format(arena, "%.*s,%.*s->%.*s%.*s", (int) (kept + summed), letters,
                            (int) (summed + made), letters + kept, (int) kept, letters, (int) made,
                            letters + kept + summed);
}

const char *nyb_keras_sublayer_equation(nyb_arena *arena, const nyb_keras_sublayer *sublayer,
                                        const nyb_keras_layer *layer)
{
    if (sublayer->equation)
        return sublayer->equation;
    if (sublayer->input_rank != output_rank)
        return projection(arena, sublayer->input_rank(layer) - 1, 1, 2);
    const json_t *const shape = json_object_get(layer->config, "output_shape");
    const size_t made = json_is_array(shape) ? json_array_size(shape) : 1;
    return projection(arena, query_rank(layer) - 1, 2, made);
}

// ---- Guessing -------------------------------------------------------------------------------

static const struct {
    const char *name;  // last part of a place, without a number behind it
    const char *model; // what the model's class begins with; NULL: any
    nyb_keras_guess guess;
} places[] = {
    {"dense", NULL, {"Dense", NULL}},
    {"embedding", NULL, {"Embedding", NULL}},
    {"einsum_dense", NULL, {"EinsumDense", NULL}},
    {"reversible_embedding", NULL, {"ReversibleEmbedding", NULL}},
    {"feedforward_gate_dense", NULL, {"Dense", NULL}},
    {"feedforward_intermediate_dense", NULL, {"Dense", NULL}},
    {"feedforward_output_dense", NULL, {"Dense", NULL}},
    {"gating_ffw", "Gemma", {"EinsumDense", "btd,df->btf"}},
    {"ffw_linear", "Gemma", {"EinsumDense", "btf,fd->btd"}},
    {"query_dense", "Gemma", {"EinsumDense", "btd,ndh->btnh"}},
    {"key_dense", "Gemma", {"EinsumDense", "bsd,kdh->bskh"}},
    {"value_dense", "Gemma", {"EinsumDense", "bsd,kdh->bskh"}},
    {"query_dense", NULL, {"EinsumDense", "abc,cde->abde"}},
    {"key_dense", NULL, {"EinsumDense", "abc,cde->abde"}},
    {"value_dense", NULL, {"EinsumDense", "abc,cde->abde"}},
    {"gate_dense", NULL, {"EinsumDense", "abc,cde->abde"}},
    {"output_dense", NULL, {"EinsumDense", "abcd,cde->abe"}},
};

// Without "_2" at its end.
static size_t plain_length(const char *name)
{
    size_t length = strlen(name);
    while (length > 0 && isdigit((unsigned char) name[length - 1]))
        length--;
    return name[length] && length > 1 && name[length - 1] == '_' ? length - 1 : strlen(name);
}

nyb_keras_guess nyb_keras_guess_of(const char *place, const char *model)
{
    const char *const slash = strrchr(place, '/');
    const char *last = slash ? slash + 1 : place;
    last += *last == '_';
    const size_t length = plain_length(last);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (strlen(places[i].name) == length && strncmp(places[i].name, last, length) == 0 &&
            (!places[i].model || strncmp(places[i].model, model, strlen(places[i].model)) == 0))
            return places[i].guess;
    }
    // In a list of layers the class itself names the place: it is none that has another form.
    const size_t list = slash ? (size_t) (slash - place) : 0;
    if (list >= 6 && strncmp(slash - 6, "layers", 6) == 0 && (list == 6 || slash[-7] == '/'))
        return (nyb_keras_guess){.class_name = "Layer"};
    return (nyb_keras_guess){.class_name = ""};
}

const char *nyb_keras_guess_scope(const nyb_keras_file *file, nyb_arena *arena, const char *place)
{
    const char *scope = nyb_arena_text(arena, "", 0);
    for (const char *end = strchr(place, '/'); scope; end = strchr(end + 1, '/')) {
        const size_t length = end ? (size_t) (end - place) : strlen(place);
        const char *const vars = nyb_arena_format(arena, "%.*s/vars", (int) length, place);
        const nyb_hdf5_item *const item = vars ? nyb_keras_find(file, vars) : NULL;
        const char *const name =
            item ? json_string_value(json_object_get(item->attributes, "name")) : NULL;
        if (name)
            scope = nyb_arena_format(arena, "%s%s%s", scope, *scope ? "/" : "", name);
        if (!end)
            break;
    }
    return scope;
}
