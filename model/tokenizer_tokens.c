#include "nybble/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/bytes.h"

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

static nyb_status read_stream(nyb_bytes *out, FILE *stream, const char *name, nyb_err *err)
{
    enum { CHUNK = 1 << 16 };
    size_t got = 1;
    while (got > 0 && nyb_bytes_reserve(out, CHUNK)) {
        got = fread(out->at + out->count, 1, out->room - out->count, stream);
        out->count += got;
    }
    nyb_bytes_add(out, "", 1);
    if (ferror(stream))
        return nyb_fail(err, NYB_E_IO, "%s: cannot read it: %s", name, strerror(errno));
    return nyb_bytes_status(out, err);
}

nyb_status nyb_text_read(char **text, size_t *length, const char *path, nyb_err *err)
{
    const bool is_file = strcmp(path, "-") != 0;
    nyb_bytes bytes = {0};
    *text = NULL;
    *length = 0;
    FILE *const stream = is_file ? fopen(path, "rb") : stdin;
    if (!stream)
        return nyb_fail(err, NYB_E_IO, "%s: cannot open it: %s", path, strerror(errno));

    const nyb_status status = read_stream(&bytes, stream, is_file ? path : "standard input", err);
    if (is_file)
        (void) fclose(stream);
    if (status != NYB_OK) {
        nyb_bytes_clear(&bytes);
        return status;
    }
    *text = bytes.at;
    *length = bytes.count - 1;
    return NYB_OK;
}
