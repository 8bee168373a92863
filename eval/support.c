// Tables of what is supported, filled from the tables that the library works by.
#include "nybble/support.h"

#include <stdio.h>
#include <string.h>

#include "calib/gguf_file.h"
#include "core/arena.h"
#include "core/dtype.h"
#include "formats/checkpoint.h"
#include "formats/gguf_names.h"
#include "formats/gguf_types.h"
#include "formats/layout.h"
#include "formats/quantization.h"
#include "model/activation.h"
#include "model/arch.h"
#include "model/config.h"
#include "model/config_wrapper.h"
#include "model/tokenizer_cuts.h"
#include "model/tokenizer_kinds.h"

enum { TABLES_MOST = 8, CELLS_AT_FIRST = 256 };

typedef struct support_owner {
    nyb_arena arena;
    nyb_support_table tables[TABLES_MOST];
} support_owner;

// A table being filled.
typedef struct maker {
    nyb_arena *arena;
    const char **cells;
    size_t count, room;
    bool full; // memory ran out
} maker;

static void cell(maker *m, const char *text)
{
    if (m->count == m->room && !m->full) {
        const size_t room = m->room ? 2 * m->room : CELLS_AT_FIRST;
        const char **const cells = nyb_arena_alloc(m->arena, room, sizeof(*cells));
        m->full = !cells;
        if (cells && m->count)
            memcpy(cells, m->cells, m->count * sizeof(*cells));
        m->cells = cells ? cells : m->cells;
        m->room = cells ? room : m->room;
    }
    m->full |= !text;
    if (!m->full)
        m->cells[m->count++] = text;
}

static void cell_bool(maker *m, bool yes)
{
    cell(m, yes ? "yes" : "");
}

// "a, b, c" of what next() gives until it is NULL.
static const char *joined(nyb_arena *arena, const char *(*next)(size_t index))
{
    const char *text = nyb_arena_text(arena, "", 0);
    for (size_t i = 0; text && next(i); i++)
        text = nyb_arena_format(arena, "%s%s%s", text, i ? ", " : "", next(i));
    return text;
}

// ---- Families -------------------------------------------------------------------------------

static const char *positions_of(const nyb_arch *a)
{
    if (a->positions == NYB_POSITIONS_LEARNED)
        return "learned";
    return a->alibi.key ? "rotary or linear biases" : "rotary";
}

static const char *attention_of(const nyb_arch *a)
{
    if (a->latent.kv_a)
        return "latent";
    return a->bidirectional ? "both ways" : a->qkv ? "fused" : "separate";
}

static const char *gguf_name_of(const char *model_type)
{
    const nyb_gguf_arch *const arch = nyb_gguf_arch_of_model(model_type, NULL, NULL);
    return arch ? arch->name : "";
}

static void fill_families(maker *m)
{
    static const char *const norms[] = {
        [NYB_NORM_RMS] = "RMS", [NYB_NORM_RMS_PLUS] = "RMS, 1 + gain", [NYB_NORM_LAYER] = "layer"};
    for (size_t i = 0; nyb_arch_at(i); i++) {
        const nyb_arch *const a = nyb_arch_at(i);
        cell(m, a->about);
        cell(m, a->model_type);
        cell(m, norms[a->norm]);
        cell(m, positions_of(a));
        cell(m, attention_of(a));
        cell_bool(m, a->experts.count_key);
        cell(m, gguf_name_of(a->model_type));
    }
}

static void fill_wrappers(maker *m)
{
    for (size_t i = 0; nyb_wrapper_at(i); i++) {
        cell(m, nyb_wrapper_at(i)->model_type);
        cell(m, nyb_wrapper_at(i)->text_type ? nyb_wrapper_at(i)->text_type : "any family's");
    }
}

static const char *rope_name(size_t index)
{
    const nyb_rope_name *const name = nyb_rope_name_at(index);
    return name ? name->text : NULL;
}

static void fill_words(maker *m)
{
    cell(m, "types of rotary positions");
    cell(m, joined(m->arena, rope_name));
    cell(m, "activations");
    cell(m, joined(m->arena, nyb_activation_name_at));
}

// ---- Formats --------------------------------------------------------------------------------

static void fill_methods(maker *m)
{
    for (size_t i = 0; nyb_quantization_method_at(i); i++) {
        cell(m, nyb_quantization_method_at(i)->method);
        cell(m, nyb_quantization_method_at(i)->about);
    }
}

static void fill_layouts(maker *m)
{
    for (size_t i = 0; nyb_layout_writable_at(i); i++) {
        const nyb_layout *const l = nyb_layout_writable_at(i);
        cell(m, l->name);
        cell(m, l->format ? l->format : "");
        cell(m, l->about);
        cell(m, l->marker);
        cell(m, l->lowest_zero ? "1" : "0");
        cell_bool(m, l->inputs);
        cell_bool(m, l->transposed);
    }
}

static void fill_block_types(maker *m)
{
    nyb_gguf_type_row row;
    for (size_t i = 0; nyb_gguf_type_at(i, &row); i++) {
        const bool block = row.dtype >= 0 && nyb_dtype_is_block((nyb_dtype) row.dtype);
        const bool reads = block || (row.dtype >= 0 && nyb_dtype_is_float((nyb_dtype) row.dtype));
        nyb_dtype dtype = NYB_F32;
        const bool writes = nyb_gguf_type_named(row.name, &dtype);
        cell(m, row.name);
        if (reads) {
            const nyb_block_size size = nyb_dtype_block((nyb_dtype) row.dtype);
            cell(m, nyb_arena_format(m->arena, "%zu", size.values));
            cell(m, nyb_arena_format(m->arena, "%zu", size.bytes));
            cell(m, nyb_arena_format(m->arena, "%.4g",
                                     8.0 * (double) size.bytes / (double) size.values));
        } else {
            for (size_t k = 0; k < 3; k++)
                cell(m, "");
        }
        cell_bool(m, reads);
        cell_bool(m, writes);
        cell_bool(m, writes && nyb_dtype_is_block(dtype));
    }
}

static void fill_gguf_archs(maker *m)
{
    for (size_t i = 0; nyb_gguf_arch_at(i); i++) {
        // Variants of one family lie together.
        if (nyb_gguf_arch_at(i + 1) &&
            strcmp(nyb_gguf_arch_at(i)->model_type, nyb_gguf_arch_at(i + 1)->model_type) == 0)
            continue;
        cell(m, nyb_gguf_arch_at(i)->name);
        cell(m, nyb_gguf_arch_at(i)->model_type);
    }
}

static void fill_strangers(maker *m)
{
    for (size_t i = 0; nyb_checkpoint_stranger_at(i); i++) {
        cell(m, nyb_checkpoint_stranger_at(i)->end);
        cell(m, nyb_checkpoint_stranger_at(i)->text);
    }
}

// ---- Tokenizers -----------------------------------------------------------------------------

static void fill_parts(maker *m)
{
    static const struct {
        const char *part;
        const char *(*next)(size_t index);
        bool sequence;
    } parts[] = {
        {"model", nyb_tokenizer_model_name_at, false},
        {"normalizer", nyb_normalizer_name_at, true},
        {"pre-tokenizer", nyb_pretokenizer_name_at, true},
        {"post-processor", nyb_postprocessor_name_at, true},
        {"decoder", nyb_decoder_name_at, true},
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const char *const names = joined(m->arena, parts[i].next);
        cell(m, parts[i].part);
        cell(m, names && parts[i].sequence ? nyb_arena_format(m->arena, "%s, Sequence", names)
                                           : names);
    }
}

static void fill_cuts(maker *m)
{
    for (size_t i = 0; nyb_tokenizer_cut_at(i); i++) {
        const nyb_tokenizer_cut *const cut = nyb_tokenizer_cut_at(i);
        cell(m, cut->name);
        cell_bool(m, strcmp(cut->normalizer, "null") != 0);
        cell_bool(m, cut->whole_first);
    }
}

// ---- Topics ---------------------------------------------------------------------------------

#define COLUMNS(...)                                                                               \
    (const nyb_support_column[]){__VA_ARGS__},                                                     \
        sizeof((const nyb_support_column[]){__VA_ARGS__}) / sizeof(nyb_support_column)

static const nyb_support_topic topics[] = {
    {"families", "models that nybble runs and quantises"},
    {"formats", "files that it reads and writes"},
    {"tokenizers", "parts of tokenizers that it has"},
};

static const struct {
    const char *topic, *name, *about;
    const nyb_support_column *columns;
    size_t column_count;
    void (*fill)(maker *m);
} tables[] = {
    {"families", "families", "Families, by 'model_type' in config.json",
     COLUMNS({"family", false}, {"model type", true}, {"norms", false}, {"positions", false},
             {"attention", false}, {"experts", false}, {"GGUF", true}),
     fill_families},
    {"families", "wrappers", "Multimodal models whose language model is run",
     COLUMNS({"model type", true}, {"its text_config", false}), fill_wrappers},
    {"families", "words", "Words of config.json", COLUMNS({"what", false}, {"known", true}),
     fill_words},
    {"formats", "methods", "Quantised folders that are read, by 'quant_method'",
     COLUMNS({"quant_method", true}, {"what is read", false}), fill_methods},
    {"formats", "layouts", "Layouts of quantised layers that are written",
     COLUMNS({"--format", true}, {"its format", true}, {"about", false}, {"tensor", true},
             {"least zero point", false}, {"rounded inputs", false}, {"Conv1D", false}),
     fill_layouts},
    {"formats", "gguf-types", "Types of tensors in GGUF files",
     COLUMNS({"type", true}, {"values", false}, {"bytes", false}, {"bits", false}, {"read", false},
             {"rtn", false}, {"gptq", false}),
     fill_block_types},
    {"formats", "gguf-architectures", "GGUF files that are read and written, by architecture",
     COLUMNS({"general.architecture", true}, {"model type", true}), fill_gguf_archs},
    {"formats", "strangers", "Files that are told from others, and not read as checkpoints",
     COLUMNS({"ending", true}, {"what it is", false}), fill_strangers},
    {"tokenizers", "parts", "Parts of a tokenizer.json", COLUMNS({"part", false}, {"kinds", true}),
     fill_parts},
    {"tokenizers", "cuts", "Pre-tokenizers of GGUF files, by 'tokenizer.ggml.pre'",
     COLUMNS({"name", true}, {"normalises", false}, {"takes whole tokens first", false}),
     fill_cuts},
};

const nyb_support_topic *nyb_support_topic_at(size_t index)
{
    return index < sizeof(topics) / sizeof(topics[0]) ? &topics[index] : NULL;
}

nyb_status nyb_support_open(nyb_support *out, const char *topic, nyb_err *err)
{
    support_owner *const owner = nyb_alloc(1, sizeof(*owner));
    bool full = false;
    *out = (nyb_support){.owner = owner};
    if (!owner)
        return nyb_no_memory(err, "tables", 1, sizeof(*owner));
    out->tables = owner->tables;
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        maker m = {.arena = &owner->arena};
        if (strcmp(tables[i].topic, topic) != 0 || out->count == TABLES_MOST)
            continue;
        tables[i].fill(&m);
        full |= m.full;
        owner->tables[out->count++] = (nyb_support_table){
            .name = tables[i].name,
            .about = tables[i].about,
            .columns = tables[i].columns,
            .column_count = tables[i].column_count,
            .cells = m.cells,
            .row_count = m.count / tables[i].column_count,
        };
    }
    if (out->count > 0 && !full)
        return NYB_OK;
    const bool unknown = out->count == 0;
    nyb_support_close(out);
    return unknown ? nyb_fail(err, NYB_E_ARG, "there is no table of '%s'", topic)
                   : nyb_no_memory(err, "tables", CELLS_AT_FIRST, sizeof(char *));
}

void nyb_support_close(nyb_support *support)
{
    support_owner *const owner = support->owner;
    if (owner)
        nyb_arena_clear(&owner->arena);
    nyb_free(owner);
    *support = (nyb_support){0};
}
