#include "model/token_decoder.h"

#include "core/json.h"
#include "model/byte_level.h"
#include "model/parts.h"
#include "model/pretokenizer.h"
#include "model/tokenizer_kinds.h"
#include "model/unicode.h"

struct nyb_decoder_kind {
    const char *name;
    nyb_status (*load)(nyb_decoder *node, const nyb_part *part, const json_t *value,
                       nyb_err *err); // NULL: nothing to read
    // Appends what becomes of p's pieces to p->spare_text and p->next.
    nyb_status (*run)(const nyb_decoder *node, nyb_pieces *p, nyb_err *err);
};

// Ends the piece that started at `begin` of the text being written.
static void end_piece(nyb_pieces *p, size_t begin)
{
    nyb_ranges_add(&p->next, begin, p->spare_text.count, false);
}

// A token all of whose characters stand for bytes becomes them, any other stays as it is. All
// tokens become one piece, since a character may begin in one and end in another.
static nyb_status run_byte_level(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    nyb_bytes raw = {0};
    (void) node;
    for (size_t i = 0; i < p->now.count; i++) {
        const nyb_range token = p->now.at[i];
        const size_t before = raw.count;
        for (size_t at = token.begin; at < token.end;) {
            const int byte = nyb_byte_level_byte(nyb_utf8_next(p->text.at, &at));
            const char c = (char) byte;
            if (byte < 0) {
                raw.count = before;
                nyb_bytes_add(&raw, p->text.at + token.begin, token.end - token.begin);
                break;
            }
            nyb_bytes_add(&raw, &c, 1);
        }
    }
    const nyb_status status = nyb_bytes_status(&raw, err);
    if (status == NYB_OK)
        nyb_utf8_repair(&p->spare_text, raw.at, raw.count);
    nyb_bytes_clear(&raw);
    end_piece(p, 0);
    return status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The byte of a token like "<0x0A>", or -1.
static int fallback_byte(const char *text, size_t length)
{
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    const int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

// Writes a run of bytes as a piece: as text when all of it is UTF-8, else each byte as U+FFFD.
static void put_run(nyb_pieces *p, const nyb_bytes *run)
{
    const size_t begin = p->spare_text.count;
    if (run->count == 0)
        return;
    if (nyb_utf8_valid(run->at, run->count) == run->count) {
        nyb_bytes_add(&p->spare_text, run->at, run->count);
        end_piece(p, begin);
        return;
    }
    for (size_t i = 0; i < run->count; i++) {
        const size_t here = p->spare_text.count;
        nyb_bytes_add_char(&p->spare_text, NYB_CHAR_REPLACEMENT);
        end_piece(p, here);
    }
}

static nyb_status run_byte_fallback(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    nyb_bytes run = {0};
    (void) node;
    for (size_t i = 0; i < p->now.count; i++) {
        const nyb_range token = p->now.at[i];
        const int byte = fallback_byte(p->text.at + token.begin, token.end - token.begin);
        if (byte >= 0) {
            const char c = (char) byte;
            nyb_bytes_add(&run, &c, 1);
            continue;
        }
        put_run(p, &run);
        nyb_bytes_reset(&run);
        const size_t begin = p->spare_text.count;
        nyb_bytes_add(&p->spare_text, p->text.at + token.begin, token.end - token.begin);
        end_piece(p, begin);
    }
    put_run(p, &run);
    const nyb_status status = nyb_bytes_status(&run, err);
    nyb_bytes_clear(&run);
    return status;
}

static nyb_status run_fuse(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    (void) node, (void) err;
    for (size_t i = 0; i < p->now.count; i++) {
        const nyb_range token = p->now.at[i];
        nyb_bytes_add(&p->spare_text, p->text.at + token.begin, token.end - token.begin);
    }
    end_piece(p, 0);
    return NYB_OK;
}

static nyb_status load_metaspace(nyb_decoder *node, const nyb_part *part, const json_t *value,
                                 nyb_err *err)
{
    nyb_prefix_scheme scheme = NYB_PREFIX_ALWAYS;
    nyb_status status = nyb_part_char(value, "replacement", part->arena, &node->text, &node->length,
                                      part->name, err);
    if (status == NYB_OK)
        status = nyb_prefix_scheme_read(value, &scheme, part->name, err);
    node->drop_first = scheme != NYB_PREFIX_NEVER;
    return status;
}

static nyb_status run_metaspace(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    (void) err;
    for (size_t i = 0; i < p->now.count; i++) {
        const size_t begin = p->spare_text.count;
        const nyb_range token = p->now.at[i];
        for (size_t at = token.begin; at < token.end;) {
            const size_t here = at;
            (void) nyb_utf8_next(p->text.at, &at);
            if (at - here != node->length || memcmp(p->text.at + here, node->text, at - here) != 0)
                nyb_bytes_add(&p->spare_text, p->text.at + here, at - here);
            else if (i > 0 || !node->drop_first)
                nyb_bytes_add(&p->spare_text, " ", 1);
        }
        end_piece(p, begin);
    }
    return NYB_OK;
}

static nyb_status load_replace(nyb_decoder *node, const nyb_part *part, const json_t *value,
                               nyb_err *err)
{
    nyb_status status =
        nyb_part_text(value, "content", part->arena, &node->text, &node->length, part->name, err);
    if (status == NYB_OK)
        status = nyb_part_pattern(value, &node->pattern, part->name, err);
    return status;
}

static nyb_status run_replace(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < p->now.count && status == NYB_OK; i++) {
        const size_t begin = p->spare_text.count;
        const nyb_range token = p->now.at[i];
        status = nyb_part_replace(node->pattern, node->text, node->length, p->text.at + token.begin,
                                  token.end - token.begin, &p->spare_text, p, err);
        end_piece(p, begin);
    }
    return status;
}

static nyb_status load_strip(nyb_decoder *node, const nyb_part *part, const json_t *value,
                             nyb_err *err)
{
    nyb_status status =
        nyb_part_char(value, "content", part->arena, &node->text, &node->length, part->name, err);
    if (status == NYB_OK)
        status = nyb_json_size(value, "start", &node->start, part->name, err);
    if (status == NYB_OK)
        status = nyb_json_size(value, "stop", &node->stop, part->name, err);
    return status;
}

static nyb_status run_strip(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    (void) err;
    for (size_t i = 0; i < p->now.count; i++) {
        const size_t begin = p->spare_text.count;
        nyb_range token = p->now.at[i];
        for (size_t k = 0; k < node->start && token.end - token.begin >= node->length; k++) {
            if (memcmp(p->text.at + token.begin, node->text, node->length) != 0)
                break;
            token.begin += node->length;
        }
        for (size_t k = 0; k < node->stop && token.end - token.begin >= node->length; k++) {
            if (memcmp(p->text.at + token.end - node->length, node->text, node->length) != 0)
                break;
            token.end -= node->length;
        }
        nyb_bytes_add(&p->spare_text, p->text.at + token.begin, token.end - token.begin);
        end_piece(p, begin);
    }
    return NYB_OK;
}

static nyb_status load_suffix(nyb_decoder *node, const nyb_part *part, const json_t *value,
                              nyb_err *err)
{
    nyb_status status =
        nyb_part_text(value, "suffix", part->arena, &node->text, &node->length, part->name, err);
    if (status == NYB_OK)
        status = nyb_pattern_text(&node->pattern, node->text, node->length, err);
    return status;
}

static nyb_status run_suffix(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < p->now.count && status == NYB_OK; i++) {
        const size_t begin = p->spare_text.count;
        const nyb_range token = p->now.at[i];
        status =
            nyb_part_replace(node->pattern, " ", i + 1 < p->now.count, p->text.at + token.begin,
                             token.end - token.begin, &p->spare_text, p, err);
        end_piece(p, begin);
    }
    return status;
}

static nyb_status load_wordpiece(nyb_decoder *node, const nyb_part *part, const json_t *value,
                                 nyb_err *err)
{
    node->cleanup = true;
    const nyb_status status =
        nyb_part_text(value, "prefix", part->arena, &node->text, &node->length, part->name, err);
    return status == NYB_OK ? nyb_json_bool(value, "cleanup", &node->cleanup, part->name, err)
                            : status;
}

static void replace_all(nyb_bytes *out, const nyb_bytes *in, const char *what, const char *with)
{
    const size_t length = strlen(what);
    nyb_bytes_reset(out);
    for (size_t at = 0; at < in->count;) {
        const bool found = in->count - at >= length && memcmp(in->at + at, what, length) == 0;
        nyb_bytes_add(out, found ? with : in->at + at, found ? strlen(with) : 1);
        at += found ? length : 1;
    }
}

// Spaces that English does not have, taken out of one token after the other in this order.
static void clean_up(nyb_bytes *text, nyb_bytes *spare)
{
    static const char *const pairs[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        replace_all(spare, text, pairs[i][0], pairs[i][1]);
        const nyb_bytes kept = *text;
        *text = *spare;
        *spare = kept;
    }
}

static nyb_status run_wordpiece(const nyb_decoder *node, nyb_pieces *p, nyb_err *err)
{
    nyb_bytes word = {0}, spare = {0};
    for (size_t i = 0; i < p->now.count; i++) {
        const char *const text = p->text.at + p->now.at[i].begin;
        const size_t length = p->now.at[i].end - p->now.at[i].begin;
        const size_t begin = p->spare_text.count;
        const bool inside = i > 0 && length >= node->length && node->length > 0 &&
                            memcmp(text, node->text, node->length) == 0;
        nyb_bytes_reset(&word);
        nyb_bytes_add(&word, " ", i > 0 && !inside && node->length > 0);
        nyb_bytes_add(&word, text + (inside ? node->length : 0),
                      length - (inside ? node->length : 0));
        if (node->cleanup)
            clean_up(&word, &spare);
        nyb_bytes_add(&p->spare_text, word.at, word.count);
        end_piece(p, begin);
    }
    nyb_status status = nyb_bytes_status(&word, err);
    if (status == NYB_OK)
        status = nyb_bytes_status(&spare, err);
    nyb_bytes_clear(&word);
    nyb_bytes_clear(&spare);
    return status;
}

static const nyb_decoder_kind kinds[] = {
    {"ByteLevel", NULL, run_byte_level},
    {"ByteFallback", NULL, run_byte_fallback},
    {"Fuse", NULL, run_fuse},
    {"Metaspace", load_metaspace, run_metaspace},
    {"Replace", load_replace, run_replace},
    {"Strip", load_strip, run_strip},
    {"BPEDecoder", load_suffix, run_suffix},
    {"WordPiece", load_wordpiece, run_wordpiece},
};

const char *nyb_decoder_name_at(size_t index)
{
    return index < sizeof(kinds) / sizeof(kinds[0]) ? kinds[index].name : NULL;
}

static nyb_status load_one(const nyb_part *part, const json_t *value, nyb_err *err)
{
    const char *type = NULL;
    const nyb_status status = nyb_part_type(value, "decoder", &type, part->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, type) != 0)
            continue;
        nyb_decoder *const node = nyb_arena_alloc(part->arena, 1, sizeof(*node));
        if (!node)
            return nyb_no_memory(err, "a decoder", 1, sizeof(*node));
        node->kind = &kinds[i];
        nyb_decoder **end = part->list;
        while (*end)
            end = &(*end)->next;
        *end = node;
        return kinds[i].load ? kinds[i].load(node, part, value, err) : NYB_OK;
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: decoder '%s' is not supported", part->name, type);
}

nyb_status nyb_decoder_load(nyb_decoder **out, nyb_arena *arena, const json_t *value,
                            const char *name, nyb_err *err)
{
    const nyb_part part = {.list = out, .arena = arena, .name = name};
    *out = NULL;
    return nyb_part_each(value, "decoders", &part, load_one, err);
}

void nyb_decoder_clear(nyb_decoder *list)
{
    for (; list; list = list->next)
        nyb_pattern_free(list->pattern);
}

nyb_status nyb_decoder_run(const nyb_decoder *list, nyb_pieces *p, nyb_err *err)
{
    for (; list; list = list->next) {
        p->next.count = 0;
        nyb_bytes_reset(&p->spare_text);
        nyb_status status = list->kind->run(list, p, err);
        if (status == NYB_OK)
            status = nyb_bytes_status(&p->spare_text, err);
        if (status == NYB_OK)
            status = nyb_ranges_status(&p->next, err);
        if (status != NYB_OK)
            return status;

        const nyb_bytes text = p->text;
        const nyb_ranges now = p->now;
        p->text = p->spare_text;
        p->now = p->next;
        p->spare_text = text;
        p->next = now;
    }
    return NYB_OK;
}
