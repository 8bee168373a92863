// sweep_words.h - command lines and names, put together word by word.
#ifndef NYB_EVAL_SWEEP_WORDS_H_
#define NYB_EVAL_SWEEP_WORDS_H_

#include "core/arena.h"
#include "core/json.h"

// A growing text in an arena. `text` is NULL once there was no memory.
typedef struct nyb_words {
    nyb_arena *arena;
    const char *text;
} nyb_words;

nyb_words nyb_words_of(nyb_arena *arena, const char *first);

// Adds a space and the word, in quotes where a shell needs them.
void nyb_words_add(nyb_words *words, const char *word);

// Adds " --NAME VALUE".
void nyb_words_option(nyb_words *words, const char *name, const char *value);
void nyb_words_number(nyb_words *words, const char *name, size_t value);

// Adds the options that say what a settings object says: its keys with dashes.
void nyb_words_settings(nyb_words *words, const json_t *settings);

// Adds "-WORD" without quotes, for names; characters that are none of a file's become '_'.
void nyb_words_join(nyb_words *words, const char *word);

// A JSON text, number or boolean as a word in the arena; NULL: no memory, or something else.
const char *nyb_word_of(nyb_arena *arena, const json_t *value);

#endif // NYB_EVAL_SWEEP_WORDS_H_
