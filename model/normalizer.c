#include "model/normalizer.h"

#include "core/json.h"
#include "model/byte_level.h"
#include "model/parts.h"
#include "model/tokenizer_kinds.h"
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

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Decodes base64 into out, which has room for three quarters of the text; false when it is none.
static bool decode_base64(const char *text, size_t length, char *out, size_t *count)
{
    while (length > 0 && text[length - 1] == '=')
        length--;
    *count = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < length; i++) {
        const int digit = base64_digit(text[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t) digit;
        if (i % 4 > 0)
            out[(*count)++] = (char) (unsigned char) (bits >> (6 - i % 4 * 2) & 0xff);
    }
    return length % 4 != 1;
}

static nyb_status load_precompiled(nyb_normalizer *node, nyb_arena *arena, const json_t *value,
                                   const char *name, nyb_err *err)
{
    const json_t *const map = json_object_get(value, "precompiled_charsmap");
    const size_t length = json_string_length(map);
    size_t count = 0;
    char *const blob = nyb_arena_alloc(arena, length + 1, 1);
    if (!blob)
        return nyb_no_memory(err, "the character map", length, 1);
    if (!json_is_string(map) || !decode_base64(json_string_value(map), length, blob, &count))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'precompiled_charsmap' is not base64", name);
    return nyb_charsmap_open(&node->charsmap, blob, count, name, err);
}

enum { SHORT_GRAPHEME = 6 }; // bytes; longer ones are looked up character by character

static nyb_status run_precompiled(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                                  nyb_pieces *pieces, nyb_err *err)
{
    (void) pieces, (void) err;
    for (size_t at = 0; at < in->count;) {
        const size_t end = nyb_grapheme_end(in->at, at, in->count);
        const char *with = end - at < SHORT_GRAPHEME
                               ? nyb_charsmap_first(&node->charsmap, in->at + at, end - at)
                               : NULL;
        if (with) {
            nyb_bytes_add(out, with, strlen(with));
            at = end;
        }
        while (at < end) {
            const size_t begin = at;
            (void) nyb_utf8_next(in->at, &at);
            with = nyb_charsmap_first(&node->charsmap, in->at + begin, at - begin);
            nyb_bytes_add(out, with ? with : in->at + begin, with ? strlen(with) : at - begin);
        }
    }
    return NYB_OK;
}

static nyb_status load_bert(nyb_normalizer *node, nyb_arena *arena, const json_t *value,
                            const char *name, nyb_err *err)
{
    (void) arena;
    node->clean = node->chinese = node->lowercase = true;
    nyb_status status = nyb_json_bool(value, "clean_text", &node->clean, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "handle_chinese_chars", &node->chinese, name, err);
    if (status == NYB_OK)
        status = nyb_json_bool(value, "lowercase", &node->lowercase, name, err);
    node->accents = node->lowercase; // unless the file says otherwise
    if (status == NYB_OK)
        status = nyb_json_bool(value, "strip_accents", &node->accents, name, err);
    return status;
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

// BERT's cleaning: control characters go, white space becomes spaces, ideographs get spaces around
// them.
static void clean_bert(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out)
{
    for (size_t at = 0; at < in->count;) {
        const size_t begin = at;
        const uint32_t c = nyb_utf8_next(in->at, &at);
        const bool blank = nyb_char_is_space(c);
        const bool control = c == 0 || c == NYB_CHAR_REPLACEMENT || nyb_char_is_other(c);
        const bool layout = c == '\t' || c == '\n' || c == '\r';
        const bool apart = node->chinese && is_chinese(c);
        if (node->clean && control && !layout)
            continue;
        nyb_bytes_add(out, " ", apart);
        if (node->clean && blank)
            nyb_bytes_add(out, " ", 1);
        else
            nyb_bytes_add(out, in->at + begin, at - begin);
        nyb_bytes_add(out, " ", apart);
    }
}

static nyb_status run_bert(const nyb_normalizer *node, const nyb_bytes *in, nyb_bytes *out,
                           nyb_pieces *pieces, nyb_err *err)
{
    nyb_bytes clean = {0}, plain = {0};
    clean_bert(node, in, &clean);
    nyb_status status = nyb_bytes_status(&clean, err);
    if (status == NYB_OK && node->accents) {
        status =
            nyb_unicode_normalize(&plain, clean.count ? clean.at : "", clean.count, NYB_NFD, err);
        nyb_bytes_reset(&clean);
        for (size_t at = 0; at < plain.count && status == NYB_OK;) {
            const size_t begin = at;
            if (!nyb_char_is_accent(nyb_utf8_next(plain.at, &at)))
                nyb_bytes_add(&clean, plain.at + begin, at - begin);
        }
    }
    if (status == NYB_OK && node->lowercase)
        status = run_lowercase(node, &clean, out, pieces, err);
    else if (status == NYB_OK)
        nyb_bytes_add(out, clean.at, clean.count);
    if (status == NYB_OK)
        status = nyb_bytes_status(&clean, err);
    nyb_bytes_clear(&clean);
    nyb_bytes_clear(&plain);
    return status;
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
    {"Precompiled", load_precompiled, run_precompiled},
    {"BertNormalizer", load_bert, run_bert},
};

const char *nyb_normalizer_name_at(size_t index)
{
    return index < sizeof(kinds) / sizeof(kinds[0]) ? kinds[index].name : NULL;
}

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
