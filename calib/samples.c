#include "calib/samples.h"

#include <string.h>

#include "calib/documents.h"
#include "core/file.h"
#include "formats/ids.h"
#include "nybble/tokenizer.h"

enum { TEXT_LIMIT = 1 << 30 };

// Turns CR LF and lone CR into LF, in place; returns how many there were.
static size_t unify_line_ends(char *text, size_t *length)
{
    size_t to = 0, count = 0;
    for (size_t from = 0; from < *length; from++) {
        const bool cr = text[from] == '\r';
        count += cr;
        if (cr && from + 1 < *length && text[from + 1] == '\n')
            continue;
        text[to++] = cr ? '\n' : text[from];
    }
    *length = to;
    return count;
}

static nyb_status encode_file(nyb_stream *out, const nyb_tokenizer *tokenizer, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    nyb_tokens tokens = {0};

    nyb_arena scratch = {0};
    nyb_err inner = {0};
    nyb_status status = nyb_file_read(&scratch, out->path, TEXT_LIMIT, &text, &length, err);
    if (status == NYB_OK) {
        out->line_ends = unify_line_ends(text, &length);
        status = nyb_tokenizer_encode(tokenizer, text, length, false, &tokens, &inner);
        if (status != NYB_OK)
            (void) nyb_fail(err, status, "%s: %s", out->path, inner.text);
    }
    if (status == NYB_OK) {
        out->count = tokens.count;
        out->ids = nyb_arena_alloc(&out->arena, tokens.count, sizeof(*out->ids));
        if (!out->ids)
            status = nyb_no_memory(err, out->path, tokens.count, sizeof(*out->ids));
        else
            memcpy(out->ids, tokens.at, tokens.count * sizeof(*out->ids));
    }
    nyb_tokens_clear(&tokens);
    nyb_arena_clear(&scratch);
    return status;
}

// Whether the tokenizer puts its begin-of-sequence token before a text of its own accord.
static nyb_status begins_by_itself(bool *out, const nyb_tokenizer *tokenizer, uint32_t bos,
                                   nyb_err *err)
{
    nyb_tokens tokens = {0};
    const nyb_status status = nyb_tokenizer_encode(tokenizer, "", 0, true, &tokens, err);
    *out = status == NYB_OK && tokens.count > 0 && tokens.at[0] == bos;
    nyb_tokens_clear(&tokens);
    return status;
}

static nyb_status find_bos(nyb_stream *out, const nyb_tokenizer *tokenizer, nyb_bos bos,
                           nyb_err *err)
{
    const int64_t id = nyb_tokenizer_bos(tokenizer);
    if (bos == NYB_BOS_ALWAYS && id < 0)
        return nyb_fail(err, NYB_E_ARG,
                        "the model's tokenizer has no begin-of-sequence token; use --bos never");
    out->begins = bos == NYB_BOS_ALWAYS;
    if (id < 0)
        return NYB_OK;
    out->bos = (uint32_t) id;
    return bos == NYB_BOS_AUTO ? begins_by_itself(&out->begins, tokenizer, out->bos, err) : NYB_OK;
}

static nyb_status read_text(nyb_stream *out, const nyb_model *model, const nyb_tokenizer *tokenizer,
                            const nyb_samples_params *params, nyb_err *err)
{
    const size_t vocabulary = nyb_model_config_of(model)->vocab;
    nyb_status status = NYB_OK;
    if (!params->chat) // a conversation's template writes that token
        status = find_bos(out, tokenizer, params->bos, err);
    if (status == NYB_OK && nyb_documents_named(out->path, params->chat))
        status = nyb_documents_read(out, tokenizer, nyb_model_folder(model), params, err);
    else if (status == NYB_OK)
        status = encode_file(out, tokenizer, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < out->count; i++) {
        if (out->ids[i] >= vocabulary)
            return nyb_fail(err, NYB_E_FORMAT,
                            "%s: the tokenizer gives id %u, the model's vocabulary has %zu",
                            out->path, out->ids[i], vocabulary);
    }
    return NYB_OK;
}

static nyb_status read_ids(nyb_stream *out, size_t vocabulary, nyb_err *err)
{
    nyb_ids ids;
    const nyb_status status = nyb_ids_load(&ids, &out->arena, out->path, vocabulary, err);
    if (status != NYB_OK)
        return status;
    out->ids = ids.at;
    out->count = ids.samples * ids.length;
    out->row_length = ids.stream ? 0 : ids.length;
    return NYB_OK;
}

// Parquet files are a database's, which nybble does not read.
static nyb_status refuse_parquet(const char *path, nyb_err *err)
{
    nyb_map file = {0};
    const nyb_status status = nyb_map_open(&file, path, err);
    const bool is_one = status == NYB_OK && file.bytes >= 4 && memcmp(file.at, "PAR1", 4) == 0;
    nyb_map_close(&file);
    if (is_one)
        return nyb_fail(
            err, NYB_E_UNSUPPORTED,
            "%s: is a parquet file, which is not supported; write it as JSON lines, for "
            "example with pandas: read_parquet(...).to_json('data.jsonl', "
            "orient='records', lines=True)",
            path);
    return status;
}

nyb_status nyb_stream_open_for(nyb_stream *out, const nyb_model *model, const char *path,
                               const nyb_samples_params *params, nyb_err *err)
{
    nyb_tokenizer *tokenizer = NULL;
    *out = (nyb_stream){.path = path};
    nyb_status status = refuse_parquet(path, err);
    if (status == NYB_OK && nyb_ids_named(path)) {
        status = params->chat
                     ? nyb_fail(err, NYB_E_ARG, "%s: --chat needs JSON lines, not ids", path)
                     : read_ids(out, nyb_model_config_of(model)->vocab, err);
    } else if (status == NYB_OK) {
        status = nyb_tokenizer_open(&tokenizer, nyb_model_folder(model), NULL, err);
        if (status == NYB_OK)
            status = read_text(out, model, tokenizer, params, err);
        nyb_tokenizer_close(tokenizer);
    }
    if (status != NYB_OK)
        nyb_stream_close(out);
    return status;
}

nyb_status nyb_stream_open(nyb_stream *out, const nyb_model *model, const char *path, nyb_bos bos,
                           nyb_err *err)
{
    const nyb_samples_params params = {.bos = bos};
    return nyb_stream_open_for(out, model, path, &params, err);
}

void nyb_stream_close(nyb_stream *stream)
{
    nyb_arena_clear(&stream->arena);
    *stream = (nyb_stream){0};
}
