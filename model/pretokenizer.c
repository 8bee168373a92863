#include "model/pretokenizer.h"

#include "core/json.h"
#include "model/byte_level.h"
#include "model/parts.h"
#include "model/tokenizer_kinds.h"
#include "model/unicode.h"

struct nyb_pretokenizer_kind {
    const char *name;
    nyb_status (*load)(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                       nyb_err *err); // NULL: nothing to read
    nyb_status (*run)(const nyb_pretokenizer *node, nyb_pieces *pieces, nyb_err *err);
};

// The words of GPT-2: contractions, letters, numbers, other signs, each with one space before
// it, and runs of white space.
static const char gpt2_words[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static bool starts_with(const char *text, size_t length, const char *start, size_t start_length)
{
    return length >= start_length && memcmp(text, start, start_length) == 0;
}

static nyb_status load_byte_level(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                                  nyb_err *err)
{
    bool prefix = true; // the file has it, this is the library's default
    node->split = true;
    nyb_status status = nyb_json_bool(value, "add_prefix_space", &prefix, part->name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "use_regex", &node->split, part->name, err);
    node->prefix = prefix ? NYB_PREFIX_ALWAYS : NYB_PREFIX_NEVER;
    if (status == NYB_OK && node->split)
        status = nyb_pattern_regex(&node->pattern, gpt2_words, strlen(gpt2_words), err);
    return status;
}

static void put_space_before(const void *arg, nyb_pieces *p, const char *text, size_t length,
                             bool at_start)
{
    (void) arg, (void) at_start;
    if (!starts_with(text, length, " ", 1))
        nyb_bytes_add(&p->spare_text, " ", 1);
    nyb_bytes_add(&p->spare_text, text, length);
}

static void put_bytes(const void *arg, nyb_pieces *p, const char *text, size_t length,
                      bool at_start)
{
    (void) arg, (void) at_start;
    nyb_byte_level_put(&p->spare_text, text, length);
}

static nyb_status run_byte_level(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (node->prefix != NYB_PREFIX_NEVER)
        status = nyb_pieces_rewrite(p, put_space_before, node, err);
    if (status == NYB_OK && node->split)
        status = nyb_pieces_cut(p, nyb_find_pattern, node->pattern, NYB_CUT_ISOLATED, err);
    if (status == NYB_OK)
        status = nyb_pieces_rewrite(p, put_bytes, node, err);
    return status;
}

static nyb_status load_behavior(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                                nyb_err *err)
{
    static const char *const names[] = {
        [NYB_CUT_REMOVED] = "Removed",
        [NYB_CUT_ISOLATED] = "Isolated",
        [NYB_CUT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [NYB_CUT_MERGED_WITH_NEXT] = "MergedWithNext",
        [NYB_CUT_CONTIGUOUS] = "Contiguous",
    };
    const char *text = "Isolated";
    const nyb_status status = nyb_json_text(value, "behavior", &text, part->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], text) == 0) {
            node->behavior = (nyb_cut_behavior) i;
            return NYB_OK;
        }
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: behavior '%s' of a pre-tokenizer is not supported",
                    part->name, text);
}

static nyb_status load_split(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                             nyb_err *err)
{
    nyb_status status = load_behavior(node, part, value, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "invert", &node->invert, part->name, err);
    if (status == NYB_OK)
        status = nyb_part_pattern(value, &node->pattern, part->name, err);
    return status;
}

static nyb_status find_split(const void *arg, nyb_pieces *p, const char *text, size_t length,
                             nyb_err *err)
{
    const nyb_pretokenizer *const node = arg;
    const nyb_status status = nyb_find_pattern(node->pattern, p, text, length, err);
    if (status == NYB_OK && node->invert)
        nyb_pieces_invert(p);
    return status;
}

static nyb_status run_split(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    return nyb_pieces_cut(p, find_split, node, node->behavior, err);
}

static nyb_status load_digits(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                              nyb_err *err)
{
    bool single = false;
    const nyb_status status = nyb_json_bool(value, "individual_digits", &single, part->name, err);
    node->behavior = single ? NYB_CUT_ISOLATED : NYB_CUT_CONTIGUOUS;
    return status;
}

static nyb_status find_numbers(const void *arg, nyb_pieces *p, const char *text, size_t length,
                               nyb_err *err)
{
    (void) arg, (void) err;
    nyb_find_chars(p, text, length, nyb_char_is_number);
    return NYB_OK;
}

static nyb_status run_digits(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    return nyb_pieces_cut(p, find_numbers, node, node->behavior, err);
}

static nyb_status find_punct(const void *arg, nyb_pieces *p, const char *text, size_t length,
                             nyb_err *err)
{
    (void) arg, (void) err;
    nyb_find_chars(p, text, length, nyb_char_is_punct);
    return NYB_OK;
}

static nyb_status run_punctuation(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    return nyb_pieces_cut(p, find_punct, node, node->behavior, err);
}

static nyb_status find_spaces(const void *arg, nyb_pieces *p, const char *text, size_t length,
                              nyb_err *err)
{
    (void) arg, (void) err;
    nyb_find_chars(p, text, length, nyb_char_is_space);
    return NYB_OK;
}

static nyb_status run_whitespace_split(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    return nyb_pieces_cut(p, find_spaces, node, NYB_CUT_REMOVED, err);
}

static nyb_status run_bert(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    nyb_status status = nyb_pieces_cut(p, find_spaces, node, NYB_CUT_REMOVED, err);
    if (status == NYB_OK)
        status = nyb_pieces_cut(p, find_punct, node, NYB_CUT_ISOLATED, err);
    return status;
}

// Runs of word characters and runs of other ones, what is between them (white space) matched.
static nyb_status find_between_words(const void *arg, nyb_pieces *p, const char *text,
                                     size_t length, nyb_err *err)
{
    enum { SPACE, WORD, OTHER } kind = SPACE, before = SPACE;
    size_t begin = 0;
    (void) arg, (void) err;
    for (size_t at = 0; at < length; before = kind) {
        const size_t here = at;
        const uint32_t c = nyb_utf8_next(text, &at);
        kind = nyb_char_is_word(c) ? WORD : nyb_char_is_space(c) ? SPACE : OTHER;
        if (here > 0 && kind != before) {
            nyb_ranges_add(&p->found, begin, here, before == SPACE);
            begin = here;
        }
    }
    if (begin < length)
        nyb_ranges_add(&p->found, begin, length, before == SPACE);
    return NYB_OK;
}

static nyb_status run_whitespace(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    return nyb_pieces_cut(p, find_between_words, node, NYB_CUT_REMOVED, err);
}

static nyb_status load_delimiter(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                                 nyb_err *err)
{
    nyb_status status = nyb_part_char(value, "delimiter", part->arena, &node->symbol,
                                      &node->symbol_length, part->name, err);
    if (status == NYB_OK)
        status = nyb_pattern_text(&node->pattern, node->symbol, node->symbol_length, err);
    return status;
}

static nyb_status run_delimiter(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    return nyb_pieces_cut(p, nyb_find_pattern, node->pattern, NYB_CUT_REMOVED, err);
}

nyb_status nyb_prefix_scheme_read(const json_t *value, nyb_prefix_scheme *out, const char *name,
                                  nyb_err *err)
{
    const char *scheme = "always";
    bool add = true;
    nyb_status status = nyb_json_text(value, "prepend_scheme", &scheme, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "add_prefix_space", &add, name, err);
    if (status != NYB_OK)
        return status;

    if (strcmp(scheme, "always") == 0)
        *out = NYB_PREFIX_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        *out = NYB_PREFIX_FIRST;
    else if (strcmp(scheme, "never") == 0)
        *out = NYB_PREFIX_NEVER;
    else
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: Metaspace prepend_scheme '%s' is not supported", name, scheme);
    if (!add && json_object_get(value, "prepend_scheme") && *out != NYB_PREFIX_NEVER)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: Metaspace add_prefix_space is false, prepend_scheme is '%s'", name,
                        scheme);
    if (!add)
        *out = NYB_PREFIX_NEVER;
    return NYB_OK;
}

static nyb_status load_metaspace(nyb_pretokenizer *node, const nyb_part *part, const json_t *value,
                                 nyb_err *err)
{
    node->split = true;
    nyb_status status = nyb_part_char(value, "replacement", part->arena, &node->symbol,
                                      &node->symbol_length, part->name, err);
    if (status == NYB_OK)
        status = nyb_prefix_scheme_read(value, &node->prefix, part->name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "split", &node->split, part->name, err);
    if (status == NYB_OK)
        status = nyb_pattern_text(&node->pattern, node->symbol, node->symbol_length, err);
    return status;
}

static void put_metaspace(const void *arg, nyb_pieces *p, const char *text, size_t length,
                          bool at_start)
{
    const nyb_pretokenizer *const node = arg;
    const bool wanted =
        node->prefix == NYB_PREFIX_ALWAYS || (node->prefix == NYB_PREFIX_FIRST && at_start);
    if (wanted && !starts_with(text, length, " ", 1) &&
        !starts_with(text, length, node->symbol, node->symbol_length))
        nyb_bytes_add(&p->spare_text, node->symbol, node->symbol_length);
    for (size_t at = 0; at < length;) {
        const char *const space = memchr(text + at, ' ', length - at);
        const size_t end = space ? (size_t) (space - text) : length;
        nyb_bytes_add(&p->spare_text, text + at, end - at);
        nyb_bytes_add(&p->spare_text, node->symbol, space ? node->symbol_length : 0);
        at = end + 1;
    }
}

static nyb_status run_metaspace(const nyb_pretokenizer *node, nyb_pieces *p, nyb_err *err)
{
    nyb_status status = nyb_pieces_rewrite(p, put_metaspace, node, err);
    if (status == NYB_OK && node->split)
        status = nyb_pieces_cut(p, nyb_find_pattern, node->pattern, NYB_CUT_MERGED_WITH_NEXT, err);
    return status;
}

static const nyb_pretokenizer_kind kinds[] = {
    {"ByteLevel", load_byte_level, run_byte_level},
    {"Split", load_split, run_split},
    {"Digits", load_digits, run_digits},
    {"Metaspace", load_metaspace, run_metaspace},
    {"Punctuation", load_behavior, run_punctuation},
    {"Whitespace", NULL, run_whitespace},
    {"WhitespaceSplit", NULL, run_whitespace_split},
    {"BertPreTokenizer", NULL, run_bert},
    {"CharDelimiterSplit", load_delimiter, run_delimiter},
};

const char *nyb_pretokenizer_name_at(size_t index)
{
    return index < sizeof(kinds) / sizeof(kinds[0]) ? kinds[index].name : NULL;
}

static nyb_pretokenizer *add_node(nyb_pretokenizer **list, nyb_arena *arena)
{
    nyb_pretokenizer *const node = nyb_arena_alloc(arena, 1, sizeof(*node));
    while (*list)
        list = &(*list)->next;
    *list = node;
    return node;
}

static nyb_status load_one(const nyb_part *part, const json_t *value, nyb_err *err)
{
    const char *type = NULL;
    const nyb_status status = nyb_part_type(value, "pre-tokenizer", &type, part->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, type) != 0)
            continue;
        nyb_pretokenizer *const node = add_node(part->list, part->arena);
        if (!node)
            return nyb_no_memory(err, "a pre-tokenizer", 1, sizeof(*node));
        node->kind = &kinds[i];
        return kinds[i].load ? kinds[i].load(node, part, value, err) : NYB_OK;
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: pre-tokenizer '%s' is not supported", part->name,
                    type);
}

nyb_status nyb_pretokenizer_load(nyb_pretokenizer **out, nyb_arena *arena, const json_t *value,
                                 const char *name, nyb_err *err)
{
    const nyb_part part = {.list = out, .arena = arena, .name = name};
    *out = NULL;
    return nyb_part_each(value, "pretokenizers", &part, load_one, err);
}

nyb_status nyb_pretokenizer_metaspace(nyb_pretokenizer **out, nyb_arena *arena,
                                      nyb_prefix_scheme prefix, nyb_err *err)
{
    *out = NULL;
    nyb_pretokenizer *const node = add_node(out, arena);
    if (!node)
        return nyb_no_memory(err, "a pre-tokenizer", 1, sizeof(*node));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].run == run_metaspace)
            node->kind = &kinds[i];
    node->prefix = prefix;
    node->symbol = "\xe2\x96\x81"; // ▁
    node->symbol_length = 3;
    return NYB_OK;
}

void nyb_pretokenizer_clear(nyb_pretokenizer *list)
{
    for (; list; list = list->next)
        nyb_pattern_free(list->pattern);
}

bool nyb_pretokenizer_is_byte_level(const nyb_pretokenizer *list)
{
    for (; list; list = list->next)
        if (list->kind->run == run_byte_level)
            return true;
    return false;
}

nyb_status nyb_pretokenizer_run(const nyb_pretokenizer *list, nyb_pieces *pieces, nyb_err *err)
{
    for (; list; list = list->next) {
        const nyb_status status = list->kind->run(list, pieces, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}
