#include "model/normalizer.h"

#include "core/json.h"
#include "model/byte_level.h"
#include "model/parts.h"
#include "model/unicode.h"

struct nyb_normalizer_kind {
    const char *name;
    nyb_status (*load)(nyb_normalizer *node, nyb_arena *arena, const json_t *value,
                       const char *name, nyb_err *err); // NULL: nothing to read
    nyb_status (*run)(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                      nyb_pieces *pieces, nyb_err *err);
};

static const char space_symbol[] = "\xe2\x96\x81"; // ▁

static nyb_status run_form(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                           nyb_pieces *pieces, nyb_err *err)
{
    const char *const name = node->kind->name; // NFC, NFD, NFKC, NFKD
    const bool compose = name[strlen(name) - 1] == 'C', compat = name[2] == 'K';
    const nyb_form form = compose ? (compat ? NYB_NFKC : NYB_NFC) : (compat ? NYB_NFKD : NYB_NFD);
    (void) pieces;
    return nyb_unicode_normalize(out, in->at, in->count, form, err);
}

static nyb_status run_lowercase(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                                nyb_pieces *pieces, nyb_err *err)
{
    (void) node, (void) pieces, (void) err;
    for (size_t at = 0; at < in->count;)
        nyb_char_lower(out, nyb_utf8_next(in->at, &at));
    return NYB_OK;
}

static nyb_status run_strip_accents(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                                    nyb_pieces *pieces, nyb_err *err)
{
    (void) node, (void) pieces, (void) err;
    for (size_t at = 0; at < in->count;) {
        const size_t begin = at;
        if (!nyb_char_is_mark(nyb_utf8_next(in->at, &at)))
            nyb_bytes_add(out, in->at + begin, at - begin);
    }
    return NYB_OK;
}

static nyb_status run_nmt(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                          nyb_pieces *pieces, nyb_err *err)
{
    (void) node, (void) pieces, (void) err;
    for (size_t at = 0; at < in->count;) {
        const size_t begin = at;
        const uint32_t c = nyb_utf8_next(in->at, &at);
        if ((c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f ||
            c == 0x8f || c == 0x9f)
            continue;
        const bool blank = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
                           (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 ||
                           c == 0x2581 || c == 0xfeff || c == 0xfffd;
        nyb_bytes_add(out, blank ? " " : in->at + begin, blank ? 1 : at - begin);
    }
    return NYB_OK;
}

static nyb_status load_strip(nyb_normalizer *node, nyb_arena *arena, const json_t *value,
                             const char *name, nyb_err *err)
{
    (void) arena;
    nyb_status status = nyb_json_bool(value, "strip_left", &node->left, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "strip_right", &node->right, name, err);
    return status;
}

static nyb_status run_strip(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                            nyb_pieces *pieces, nyb_err *err)
{
    size_t begin = 0, end = in->count;
    (void) pieces, (void) err;
    while (node->left && begin < end) {
        size_t behind = begin;
        if (!nyb_char_is_space(nyb_utf8_next(in->at, &behind)))
            break;
        begin = behind;
    }
    while (node->right && begin < end) {
        const size_t last = nyb_utf8_back(in->at, end);
        size_t behind = last;
        if (!nyb_char_is_space(nyb_utf8_next(in->at, &behind)))
            break;
        end = last;
    }
    nyb_bytes_add(out, in->at + begin, end - begin);
    return NYB_OK;
}

static nyb_status load_prepend(nyb_normalizer *node, nyb_arena *arena, const json_t *value,
                               const char *name, nyb_err *err)
{
    return nyb_part_text(value, "prepend", arena, &node->text, &node->length, name, err);
}

static nyb_status run_prepend(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                              nyb_pieces *pieces, nyb_err *err)
{
    (void) pieces, (void) err;
    if (in->count > 0)
        nyb_bytes_add(out, node->text, node->length);
    nyb_bytes_add(out, in->at, in->count);
    return NYB_OK;
}

static nyb_status load_replace(nyb_normalizer *node, nyb_arena *arena, const json_t *value,
                               const char *name, nyb_err *err)
{
    const nyb_status status =
        nyb_part_text(value, "content", arena, &node->text, &node->length, name, err);
    if (status != NYB_OK)
        return status;
    return nyb_part_pattern(value, &node->pattern, name, err);
}

static nyb_status run_replace(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                              nyb_pieces *pieces, nyb_err *err)
{
    return nyb_part_replace(node->pattern, node->text, node->length, in->at, in->count, out, pieces,
                            err);
}

static nyb_status run_byte_level(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                                 nyb_pieces *pieces, nyb_err *err)
{
    (void) node, (void) pieces, (void) err;
    nyb_byte_level_put(out, in->at, in->count);
    return NYB_OK;
}

// Replaces what the map has, and keeps every other character.
static size_t map_one(const nyb_charsmap *map, const char *text, size_t length, const char **with,
                      size_t *with_length)
{
    const size_t taken = nyb_charsmap_find(map, text, length, with, with_length);
    if (taken > 0)
        return taken;
    size_t at = 0;
    (void) nyb_utf8_next(text, &at);
    *with = text;
    *with_length = at;
    return at;
}

static nyb_status run_charsmap(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                               nyb_pieces *pieces, nyb_err *err)
{
    (void) pieces, (void) err;
    for (size_t at = 0; at < in->count;) {
        const char *with = NULL;
        size_t count = 0;
        at += map_one(&node->charsmap, in->at + at, in->count - at, &with, &count);
        nyb_bytes_add(out, with, count);
    }
    return NYB_OK;
}

static void put_spm(const nyb_normalizer *node, nyb_bytes *out, const char *with, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (with[i] == ' ' && node->spaces.escape)
            nyb_bytes_add(out, space_symbol, 3);
        else
            nyb_bytes_add(out, with + i, 1);
    }
}

// SentencePiece's own normalizer: leading, trailing and repeated spaces go when remove_extra
// says so, one space comes in front when add_dummy_prefix says so.
static nyb_status run_spm(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                          nyb_pieces *pieces, nyb_err *err)
{
    const char *with = NULL;
    size_t count = 0, at = 0;
    (void) pieces, (void) err;
    while (node->spaces.remove_extra && at < in->count) {
        const size_t taken = map_one(&node->charsmap, in->at + at, in->count - at, &with, &count);
        if (count != 1 || *with != ' ')
            break;
        at += taken;
    }
    if (at == in->count)
        return NYB_OK;
    if (node->spaces.add_dummy_prefix)
        put_spm(node, out, " ", 1);

    bool after_space = node->spaces.remove_extra;
    while (at < in->count) {
        at += map_one(&node->charsmap, in->at + at, in->count - at, &with, &count);
        while (after_space && count > 0 && *with == ' ') {
            with++;
            count--;
        }
        if (count == 0)
            continue;
        put_spm(node, out, with, count);
        after_space = node->spaces.remove_extra && with[count - 1] == ' ';
    }
    const size_t space = node->spaces.escape ? 3 : 1;
    const char *const symbol = node->spaces.escape ? space_symbol : " ";
    while (node->spaces.remove_extra && out->count >= space &&
           memcmp(out->at + out->count - space, symbol, space) == 0)
        out->count -= space;
    return NYB_OK;
}

static const nyb_normalizer_kind kinds[] = {
    {"NFC", NULL, run_form},
    {"NFD", NULL, run_form},
    {"NFKC", NULL, run_form},
    {"NFKD", NULL, run_form},
    {"Lowercase", NULL, run_lowercase},
    {"StripAccents", NULL, run_strip_accents},
    {"Nmt", NULL, run_nmt},
    {"Strip", load_strip, run_strip},
    {"Prepend", load_prepend, run_prepend},
    {"Replace", load_replace, run_replace},
    {"ByteLevel", NULL, run_byte_level},
};

static const nyb_normalizer_kind charsmap_kind = {"character map", NULL, run_charsmap};
static const nyb_normalizer_kind spm_kind = {"SentencePiece", NULL, run_spm};

static nyb_status load_one(const nyb_part *part, const json_t *value, nyb_err *err)
{
    const char *type = NULL;
    nyb_status status = nyb_part_type(value, "normalizer", &type, part->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, type) != 0)
            continue;
        nyb_normalizer *const node = nyb_arena_alloc(part->arena, 1, sizeof(*node));
        if (!node)
            return nyb_no_memory(err, "a normalizer", 1, sizeof(*node));
        node->kind = &kinds[i];
        nyb_normalizer **end = part->list;
        while (*end)
            end = &(*end)->next;
        *end = node;
        return kinds[i].load ? kinds[i].load(node, part->arena, value, part->name, err) : NYB_OK;
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: normalizer '%s' is not supported", part->name,
                    type);
}

nyb_status nyb_normalizer_load(nyb_normalizer **out, nyb_arena *arena, const json_t *value,
                               const char *name, nyb_err *err)
{
    const nyb_part part = {.list = out, .arena = arena, .name = name};
    *out = NULL;
    return nyb_part_each(value, "normalizers", &part, load_one, err);
}

static nyb_normalizer *add_node(nyb_normalizer *first, nyb_arena *arena,
                                const nyb_normalizer_kind *kind)
{
    nyb_normalizer *const node = nyb_arena_alloc(arena, 1, sizeof(*node));
    if (node)
        node->kind = kind;
    if (first)
        first->next = node;
    return node;
}

nyb_status nyb_normalizer_spaces(nyb_normalizer **out, nyb_arena *arena, nyb_charsmap charsmap,
                                 nyb_err *err)
{
    nyb_normalizer *first = NULL;
    *out = NULL;
    if (charsmap.unit_count > 0) {
        first = add_node(NULL, arena, &charsmap_kind);
        if (!first)
            return nyb_no_memory(err, "a normalizer", 1, sizeof(*first));
        first->charsmap = charsmap;
        *out = first;
    }
    const nyb_normalizer_kind *kind = kinds;
    while (kind->run != run_replace)
        kind++;
    nyb_normalizer *const replace = add_node(first, arena, kind);
    if (!replace)
        return nyb_no_memory(err, "a normalizer", 1, sizeof(*replace));
    if (!first)
        *out = replace;
    replace->text = space_symbol;
    replace->length = 3;
    return nyb_pattern_text(&replace->pattern, " ", 1, err);
}

nyb_status nyb_normalizer_spm(nyb_normalizer **out, nyb_arena *arena, nyb_charsmap charsmap,
                              nyb_spm_spaces spaces, nyb_err *err)
{
    *out = add_node(NULL, arena, &spm_kind);
    if (!*out)
        return nyb_no_memory(err, "a normalizer", 1, sizeof(**out));
    (*out)->charsmap = charsmap;
    (*out)->spaces = spaces;
    return NYB_OK;
}

void nyb_normalizer_clear(nyb_normalizer *list)
{
    for (; list; list = list->next)
        nyb_pattern_free(list->pattern);
}

nyb_status nyb_normalizer_run(const nyb_normalizer *list, nyb_bytes *text, nyb_bytes *spare,
                              nyb_pieces *pieces, nyb_err *err)
{
    for (; list; list = list->next) {
        nyb_bytes_reset(spare);
        nyb_status status = list->kind->run(list, text, spare, pieces, err);
        if (status == NYB_OK)
            status = nyb_bytes_status(spare, err);
        if (status != NYB_OK)
            return status;
        const nyb_bytes kept = *text;
        *text = *spare;
        *spare = kept;
    }
    return NYB_OK;
}
