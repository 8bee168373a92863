#include "model/postprocessor.h"

#include <string.h>

#include "core/memory.h"
#include "model/parts.h"
#include "model/tokenizer_kinds.h"
#include "model/vocabulary.h"

typedef struct postprocessor_kind {
    const char *name;
    nyb_status (*load)(nyb_postprocessor *out, const json_t *value, const char *name,
                       nyb_err *err); // NULL: adds nothing
} postprocessor_kind;

static nyb_status add_id(nyb_tokens *ids, const json_t *id, const char *name, nyb_err *err)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= NYB_TOKEN_ID_LIMIT)
        return nyb_fail(err, NYB_E_FORMAT, "%s: an id of the post-processor is not in [0, %d)",
                        name, NYB_TOKEN_ID_LIMIT);
    return nyb_tokens_add(ids, (uint32_t) json_integer_value(id), err);
}

// The ids that special_tokens lists for a name.
static nyb_status add_special(nyb_tokens *ids, const json_t *specials, const json_t *piece,
                              const char *name, nyb_err *err)
{
    const char *const id = json_string_value(json_object_get(piece, "id"));
    const json_t *const list = json_object_get(json_object_get(specials, id ? id : ""), "ids");
    if (!json_is_array(list))
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: the post-processor names the token '%.100s' and does not list its ids",
                        name, id ? id : "");
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < json_array_size(list) && status == NYB_OK; i++)
        status = add_id(ids, json_array_get(list, i), name, err);
    return status;
}

static nyb_status load_template(nyb_postprocessor *out, const json_t *value, const char *name,
                                nyb_err *err)
{
    const json_t *const single = json_object_get(value, "single");
    const json_t *const specials = json_object_get(value, "special_tokens");
    bool seen = false; // the text's own place
    nyb_status status = NYB_OK;
    if (!json_is_array(single))
        return nyb_fail(err, NYB_E_FORMAT, "%s: TemplateProcessing has no list 'single'", name);

    for (size_t i = 0; i < json_array_size(single) && status == NYB_OK; i++) {
        const json_t *const item = json_array_get(single, i);
        const json_t *const special = json_object_get(item, "SpecialToken");
        const json_t *const sequence = json_object_get(item, "Sequence");
        if (special)
            status = add_special(seen ? &out->after : &out->before, specials, special, name, err);
        else if (!sequence || seen)
            status = nyb_fail(err, NYB_E_UNSUPPORTED,
                              "%s: a TemplateProcessing of this form is not supported: item %zu of "
                              "'single'",
                              name, i);
        else
            seen = true;
    }
    if (status == NYB_OK && !seen)
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "%s: a TemplateProcessing without the text is not supported", name);
    return status;
}

// BertProcessing and RobertaProcessing: cls, text, sep, each given as [text, id].
static nyb_status load_pair(nyb_postprocessor *out, const json_t *value, const char *name,
                            nyb_err *err)
{
    const json_t *const cls = json_array_get(json_object_get(value, "cls"), 1);
    const json_t *const sep = json_array_get(json_object_get(value, "sep"), 1);
    const nyb_status status = add_id(&out->before, cls, name, err);
    return status == NYB_OK ? add_id(&out->after, sep, name, err) : status;
}

static const postprocessor_kind kinds[] = {
    {"TemplateProcessing", load_template},
    {"ByteLevel", NULL}, // moves offsets, not ids
    {"BertProcessing", load_pair},
    {"RobertaProcessing", load_pair},
};

const char *nyb_postprocessor_name_at(size_t index)
{
    return index < sizeof(kinds) / sizeof(kinds[0]) ? kinds[index].name : NULL;
}

static nyb_status append(nyb_tokens *out, const nyb_tokens *ids, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < ids->count && status == NYB_OK; i++)
        status = nyb_tokens_add(out, ids->at[i], err);
    return status;
}

// The processors of a Sequence run one after the other, each around what the ones before made.
static nyb_status surround(nyb_postprocessor *inner, nyb_postprocessor *outer, nyb_err *err)
{
    nyb_status status = append(&outer->before, &inner->before, err);
    if (status == NYB_OK)
        status = append(&inner->after, &outer->after, err);
    if (status == NYB_OK) {
        const nyb_tokens before = inner->before;
        inner->before = outer->before;
        outer->before = before;
    }
    return status;
}

static nyb_status load_one(const nyb_part *part, const json_t *value, nyb_err *err)
{
    const char *type = NULL;
    nyb_status status = nyb_part_type(value, "post-processor", &type, part->name, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, type) != 0)
            continue;
        nyb_postprocessor outer = {0};
        if (kinds[i].load)
            status = kinds[i].load(&outer, value, part->name, err);
        if (status == NYB_OK)
            status = surround(part->list, &outer, err);
        nyb_postprocessor_clear(&outer);
        return status;
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: post-processor '%s' is not supported", part->name,
                    type);
}

nyb_status nyb_postprocessor_load(nyb_postprocessor *out, const json_t *value, const char *name,
                                  nyb_err *err)
{
    const nyb_part part = {.list = out, .name = name};
    *out = (nyb_postprocessor){0};
    return nyb_part_each(value, "processors", &part, load_one, err);
}

void nyb_postprocessor_clear(nyb_postprocessor *p)
{
    nyb_tokens_clear(&p->before);
    nyb_tokens_clear(&p->after);
}
