// What differs from block to block: windows, rotary positions.
#include <string.h>

#include "model/config_parts.h"

bool nyb_config_has(const nyb_model_config *config, size_t block, nyb_block_trait trait)
{
    return (config->traits[block] & trait) != 0;
}

static void set(nyb_model_config *c, size_t block, nyb_block_trait trait, bool on)
{
    if (on)
        c->traits[block] = (unsigned char) (c->traits[block] | trait);
}

// no_rope_layers holds 1 for a block that does turn its positions.
static nyb_status read_unturned(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const json_t *const list = json_object_get(r->doc, "no_rope_layers");
    size_t interval = 4;
    const nyb_status status =
        nyb_config_size(r, &interval, "no_rope_layer_interval", 4, NYB_MOST_POSITIONS, err);
    if (status != NYB_OK)
        return status;
    const bool given = json_is_array(list) && json_array_size(list) > 0;
    if (list && !json_is_null(list) && !json_is_array(list))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'no_rope_layers' is not a list", r->name);
    if (given && json_array_size(list) < c->blocks)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'no_rope_layers' has %zu entries for %zu layers",
                        r->name, json_array_size(list), c->blocks);
    for (size_t b = 0; b < c->blocks; b++)
        set(c, b, NYB_BLOCK_NO_ROPE,
            given ? json_integer_value(json_array_get(list, b)) == 0 : (b + 1) % interval == 0);
    return NYB_OK;
}

static nyb_status read_layer_types(const nyb_config_reader *r, const json_t *types, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    if (!json_is_array(types))
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'layer_types' is not a list", r->name);
    if (json_array_size(types) != c->blocks)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'layer_types' has %zu entries for %zu layers",
                        r->name, json_array_size(types), c->blocks);
    const bool chunks = c->arch->window == NYB_WINDOW_CHUNKS;
    const char *const local = chunks ? "chunked_attention" : "sliding_attention";
    for (size_t b = 0; b < c->blocks; b++) {
        const char *const text = json_string_value(json_array_get(types, b));
        const bool windowed = text && strcmp(text, local) == 0;
        if (!text || (!windowed && strcmp(text, "full_attention") != 0))
            nyb_misses_add(r->misses,
                           "layers of type '%.60s' ('layer_types'; full_attention and %s are)",
                           text ? text : "no text", local);
        else if (windowed && !c->window)
            nyb_misses_add(r->misses,
                           "layers of type '%.60s' ('layer_types') without the size of a window",
                           text);
        set(c, b, chunks ? NYB_BLOCK_CHUNKS : NYB_BLOCK_WINDOW, windowed);
    }
    return NYB_OK;
}

static nyb_status derive_windows(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const nyb_arch *const arch = c->arch;
    size_t late = c->blocks, pattern = arch->pattern;
    nyb_status status = nyb_json_size(r->doc, "max_window_layers", &late, r->name, err);
    if (status == NYB_OK && pattern)
        status = nyb_config_size(r, &pattern, "sliding_window_pattern", pattern, NYB_MOST_POSITIONS,
                                 err);
    for (size_t b = 0; status == NYB_OK && b < c->blocks; b++) {
        const bool turned = !nyb_config_has(c, b, NYB_BLOCK_NO_ROPE);
        set(c, b, NYB_BLOCK_WINDOW,
            arch->window == NYB_WINDOW_ALL || (arch->window == NYB_WINDOW_LATE && b >= late) ||
                (arch->window == NYB_WINDOW_EARLY_EVEN && b % 2 == 0 && b < late) ||
                (arch->window == NYB_WINDOW_PATTERN && (b + 1) % pattern != 0) ||
                (arch->window == NYB_WINDOW_UNTURNED && !turned));
        set(c, b, NYB_BLOCK_CHUNKS, arch->window == NYB_WINDOW_CHUNKS && turned);
    }
    return status;
}

static nyb_status read_window(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const bool chunks = c->arch->window == NYB_WINDOW_CHUNKS;
    const char *const key = chunks ? "attention_chunk_size" : "sliding_window";
    const json_t *const given = json_object_get(r->doc, key);
    bool used = !c->arch->window_asked;
    nyb_status status = nyb_json_bool(r->doc, "use_sliding_window", &used, r->name, err);
    if (status != NYB_OK || !used)
        return status;
    if (!given)
        c->window = c->arch->default_window;
    else if (!json_is_null(given))
        status = nyb_config_size(r, &c->window, key, 0, NYB_MOST_POSITIONS, err);
    if (status == NYB_OK && c->window && c->arch->window == NYB_WINDOW_NONE)
        nyb_misses_add(r->misses, "'%s' (a window in this family)", key);
    return status;
}

nyb_status nyb_config_blocks(const nyb_config_reader *r, nyb_err *err)
{
    nyb_model_config *const c = r->out;
    const json_t *const types = json_object_get(r->doc, "layer_types");
    nyb_status status = c->arch->skips_rope ? read_unturned(r, err) : NYB_OK;
    if (status == NYB_OK)
        status = read_window(r, err);
    if (status != NYB_OK)
        return status;
    if (types && !json_is_null(types))
        return read_layer_types(r, types, err);
    return c->window ? derive_windows(r, err) : NYB_OK;
}
