#include "nybble/tokenizer.h"

#include <string.h>

#include "core/memory.h"

void nyb_tokens_clear(nyb_tokens *tokens)
{
    nyb_free(tokens->at);
    *tokens = (nyb_tokens){0};
}

nyb_status nyb_tokens_add(nyb_tokens *tokens, uint32_t id, nyb_err *err)
{
    if (tokens->count == tokens->room) {
        const size_t room = tokens->room ? 2 * tokens->room : 256;
        uint32_t *const at = nyb_alloc_raw(room, sizeof(*at));
        if (!at)
            return nyb_no_memory(err, "token ids", room, sizeof(*at));
        if (tokens->count > 0)
            memcpy(at, tokens->at, tokens->count * sizeof(*at));
        nyb_free(tokens->at);
        tokens->at = at;
        tokens->room = room;
    }
    tokens->at[tokens->count++] = id;
    return NYB_OK;
}

void nyb_text_free(char *text)
{
    nyb_free(text);
}
