#include "model/tokenizer_cuts.h"

#include <string.h>

#define GPT2                                                                                       \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"                    \
    "\"use_regex\":true}"
#define BYTES                                                                                      \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"                    \
    "\"use_regex\":false}"
#define SEQUENCE(first, ...) "{\"type\":\"Sequence\",\"pretokenizers\":[" first "," __VA_ARGS__ "]}"
#define DIGITS(alone)        "{\"type\":\"Digits\",\"individual_digits\":" alone "}"
#define SPLIT(pattern)                                                                             \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern                                        \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define WORDS(digits)                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits                 \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static const nyb_tokenizer_cut cuts[] = {
    {"gpt-2", GPT2, "null", false},
    {"smollm", SEQUENCE(DIGITS("true"), GPT2), "null", false},
    {"starcoder", SEQUENCE(DIGITS("true"), GPT2), "null", false},
    {"llama-bpe", SEQUENCE(SPLIT(WORDS("\\\\p{N}{1,3}")), BYTES), "null", true},
    {"dbrx", SEQUENCE(SPLIT(WORDS("\\\\p{N}{1,3}")), BYTES), "null", false},
    {"falcon",
     SEQUENCE("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}",
              GPT2 "," DIGITS("false") "," SPLIT("[0-9][0-9][0-9]")),
     "null", false},
    {"qwen2", SEQUENCE(SPLIT(WORDS("\\\\p{N}")), BYTES), "{\"type\":\"NFC\"}", false},
};

enum { CUTS = sizeof(cuts) / sizeof(cuts[0]) };

const nyb_tokenizer_cut *nyb_tokenizer_cut_at(size_t index)
{
    return index < CUTS ? &cuts[index] : NULL;
}

const nyb_tokenizer_cut *nyb_tokenizer_cut_named(const char *name, size_t length)
{
    for (size_t i = 0; i < CUTS; i++) {
        if (strlen(cuts[i].name) == length && memcmp(cuts[i].name, name, length) == 0)
            return &cuts[i];
    }
    return NULL;
}

// What a step does, as text: two steps with the same text cut alike. NULL: no room.
static const char *step_text(nyb_arena *arena, const json_t *step)
{
    const char *const type = json_string_value(json_object_get(step, "type"));
    if (!type)
        return "?;";
    if (strcmp(type, "ByteLevel") == 0)
        return nyb_arena_format(arena, "bytes %d %d;",
                                json_is_true(json_object_get(step, "add_prefix_space")),
                                !json_is_false(json_object_get(step, "use_regex")));
    if (strcmp(type, "Digits") == 0)
        return nyb_arena_format(arena, "digits %d;",
                                json_is_true(json_object_get(step, "individual_digits")));
    const char *const pattern =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    const char *const behavior = json_string_value(json_object_get(step, "behavior"));
    if (strcmp(type, "Punctuation") == 0 && behavior)
        return nyb_arena_format(arena, "punctuation %s;", behavior);
    if (strcmp(type, "Split") == 0 && pattern && behavior)
        return nyb_arena_format(arena, "split %s %s %d;", pattern, behavior,
                                json_is_true(json_object_get(step, "invert")));
    return nyb_arena_format(arena, "%s?;", type);
}

static const char *steps_text(nyb_arena *arena, const json_t *value)
{
    const json_t *const list = json_object_get(value, "pretokenizers");
    const char *text = list ? "" : step_text(arena, value);
    for (size_t i = 0; text && i < json_array_size(list); i++) {
        const char *const step = step_text(arena, json_array_get(list, i));
        text = step ? nyb_arena_format(arena, "%s%s", text, step) : NULL;
    }
    return text;
}

const char *nyb_tokenizer_cut_name(nyb_arena *arena, const json_t *pre_tokenizer, bool whole_first)
{
    const char *const wanted = steps_text(arena, pre_tokenizer);
    for (size_t i = 0; wanted && i < CUTS; i++) {
        if (cuts[i].whole_first != whole_first)
            continue;
        json_t *const value = json_loads(cuts[i].pre_tokenizer, 0, NULL);
        const char *const text = steps_text(arena, value);
        json_decref(value);
        if (text && strcmp(text, wanted) == 0)
            return cuts[i].name;
    }
    return NULL;
}
