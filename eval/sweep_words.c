#include "eval/sweep_words.h"

#include <string.h>

static void append(nyb_words *w, const char *between, const char *word)
{
    w->text = w->text && word ? nyb_arena_format(w->arena, "%s%s%s", w->text, between, word) : NULL;
}

nyb_words nyb_words_of(nyb_arena *arena, const char *first)
{
    return (nyb_words){.arena = arena, .text = nyb_arena_text(arena, first, strlen(first))};
}

static bool is_plain(const char *word)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "_-+=:,./%@";
    return *word != '\0' && strspn(word, safe) == strlen(word);
}

void nyb_words_add(nyb_words *words, const char *word)
{
    if (!word || is_plain(word)) {
        append(words, " ", word);
        return;
    }
    // 'it'\''s': a quote ends, a quoted quote stands, and a quote begins again.
    append(words, " ", "'");
    for (const char *at = word; words->text && *at;) {
        const size_t some = strcspn(at, "'");
        append(words, "", nyb_arena_text(words->arena, at, some));
        at += some;
        if (*at == '\'') {
            append(words, "", "'\\''");
            at++;
        }
    }
    append(words, "", "'");
}

void nyb_words_option(nyb_words *words, const char *name, const char *value)
{
    append(words, " --", name);
    nyb_words_add(words, value);
}

void nyb_words_number(nyb_words *words, const char *name, size_t value)
{
    nyb_words_option(words, name, nyb_arena_format(words->arena, "%zu", value));
}

const char *nyb_word_of(nyb_arena *arena, const json_t *value)
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "yes" : "no";
    if (json_is_integer(value))
        return nyb_arena_format(arena, "%lld", (long long) json_integer_value(value));
    return json_is_real(value) ? nyb_arena_format(arena, "%.9g", json_real_value(value)) : NULL;
}

void nyb_words_settings(nyb_words *words, const json_t *settings)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *) (uintptr_t) settings, key, value)
    {
        char *const name = nyb_arena_text(words->arena, key, strlen(key));
        for (char *at = name; at && *at; at++)
            *at = *at == '_' ? '-' : *at;
        if (strcmp(key, "symmetric") == 0)
            append(words, " --", json_is_true(value) ? "symmetric" : "asymmetric");
        else if (json_is_boolean(value))
            append(words, json_is_true(value) ? " --" : " --no-", name);
        else
            nyb_words_option(words, name, nyb_word_of(words->arena, value));
    }
}

void nyb_words_join(nyb_words *words, const char *word)
{
    char *const clean = word ? nyb_arena_text(words->arena, word, strlen(word)) : NULL;
    for (char *at = clean; at && *at; at++)
        *at = is_plain((const char[]){*at, '\0'}) && *at != '/' && *at != ':' ? *at : '_';
    append(words, "-", clean);
}
