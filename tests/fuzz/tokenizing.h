// tokenizing.h - the common part of the targets for tokenizers.
#ifndef NYB_TESTS_TOKENIZING_H_
#define NYB_TESTS_TOKENIZING_H_

#include <string.h>

#include "nybble/tokenizer.h"
#include "tests/fuzz/fuzz.h"

// Opens the folder's tokenizer, and takes a text there and back.
static inline void fuzz_tokenizer_folder(const char *folder)
{
    static const char text[] = "Once upon\ta  time,\nna\xc3\xafve 12345 <s>\xe6\xa8\xa1 ";
    nyb_tokenizer *tokenizer = NULL;
    nyb_tokens tokens = {0};
    char *back = NULL;
    size_t back_length = 0;
    nyb_err err;
    if (nyb_tokenizer_open(&tokenizer, folder, NULL, &err) != NYB_OK)
        return;
    fuzz_accept();
    if (nyb_tokenizer_encode(tokenizer, text, sizeof(text) - 1, true, &tokens, &err) == NYB_OK &&
        nyb_tokenizer_decode(tokenizer, tokens.at, tokens.count, false, &back, &back_length,
                             &err) == NYB_OK)
        nyb_text_free(back);
    nyb_tokens_clear(&tokens);
    nyb_tokenizer_close(tokenizer);
}

// The same for a folder that holds this file alone.
static inline void fuzz_tokenizer(const char *name, const uint8_t *bytes, size_t length)
{
    fuzz_tokenizer_folder(fuzz_folder(name, bytes, length));
}

#endif // NYB_TESTS_TOKENIZING_H_
