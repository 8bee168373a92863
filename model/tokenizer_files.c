// Tokenizers that come as plain lists of tokens: a vocab.txt (WordPiece), or a vocab.json with a
// merges.txt (byte-level BPE). What such a folder leaves unsaid is what the tokenizer class that
// its other files name does; it is put together as the document of a tokenizer.json.
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "model/tokenizer_private.h"

enum { FILE_LIMIT = 256 << 20 };

static const char qwen2_words[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

typedef enum files_class { CLASS_GPT2, CLASS_QWEN2, CLASS_ROBERTA, CLASS_BERT } files_class;

// The classes by their names and by the model types whose class they are.
static const struct {
    const char *name;
    files_class kind;
} classes[] = {
    {"GPT2Tokenizer", CLASS_GPT2},
    {"GPT2TokenizerFast", CLASS_GPT2},
    {"Qwen2Tokenizer", CLASS_QWEN2},
    {"Qwen2TokenizerFast", CLASS_QWEN2},
    {"RobertaTokenizer", CLASS_ROBERTA},
    {"RobertaTokenizerFast", CLASS_ROBERTA},
    {"BertTokenizer", CLASS_BERT},
    {"BertTokenizerFast", CLASS_BERT},
    {"DistilBertTokenizer", CLASS_BERT},
    {"DistilBertTokenizerFast", CLASS_BERT},
    {"ElectraTokenizer", CLASS_BERT},
    {"ElectraTokenizerFast", CLASS_BERT},
    {"gpt2", CLASS_GPT2},
    {"gpt_neo", CLASS_GPT2},
    {"gptj", CLASS_GPT2},
    {"opt", CLASS_GPT2},
    {"phi", CLASS_GPT2},
    {"starcoder2", CLASS_GPT2},
    {"qwen2", CLASS_QWEN2},
    {"qwen2_moe", CLASS_QWEN2},
    {"qwen3", CLASS_QWEN2},
    {"qwen3_moe", CLASS_QWEN2},
    {"roberta", CLASS_ROBERTA},
    {"bart", CLASS_ROBERTA},
    {"bert", CLASS_BERT},
    {"distilbert", CLASS_BERT},
    {"electra", CLASS_BERT},
};

// The class that the files name; `usual` where they name none.
static nyb_status find_class(const nyb_tokenizer_config *config, files_class usual,
                             files_class *out, const char *name, nyb_err *err)
{
    const char *text = json_string_value(json_object_get(config->tokenizer, "tokenizer_class"));
    if (!text)
        text = json_string_value(json_object_get(config->model, "tokenizer_class"));
    if (!text)
        text = json_string_value(json_object_get(config->model, "model_type"));
    *out = usual;
    if (!text)
        return NYB_OK;
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        const bool same_files = (classes[i].kind == CLASS_BERT) == (usual == CLASS_BERT);
        if (same_files && strcmp(classes[i].name, text) == 0) {
            *out = classes[i].kind;
            return NYB_OK;
        }
    }
    return nyb_fail(err, NYB_E_UNSUPPORTED,
                    "%s: read as the tokenizer of '%.100s' it is not supported: save it as a "
                    "tokenizer.json",
                    name, text);
}

// The token that the files name under `key`, or the class's own.
static const char *token_of(const nyb_tokenizer_config *config, const char *key, const char *usual)
{
    const json_t *value = json_object_get(config->tokenizer, key);
    if (!value)
        value = json_object_get(config->specials, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    return json_is_string(value) ? json_string_value(value) : usual;
}

static void add_token(json_t *document, const json_t *vocab, const char *text)
{
    json_t *const list = json_object_get(document, "added_tokens");
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "content")), text) == 0)
            return;
    }
    if (json_object_get(vocab, text))
        json_array_append_new(list, json_pack("{s:s, s:b}", "content", text, "special", 1));
}

// What transformers does when a folder has `vocab`: pieces of every class.
static json_t *byte_level_document(files_class kind, const nyb_tokenizer_config *config,
                                   json_t *vocab, json_t *merges)
{
    const int space = json_is_true(json_object_get(config->tokenizer, "add_prefix_space"));
    json_t *const words =
        kind == CLASS_QWEN2
            ? json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}", "type", "Sequence",
                        "pretokenizers", "type", "Split", "pattern", "Regex", qwen2_words,
                        "behavior", "Isolated", "invert", 0, "type", "ByteLevel",
                        "add_prefix_space", space, "use_regex", 0)
            : json_pack("{s:s, s:b}", "type", "ByteLevel", "add_prefix_space", space);
    json_t *const document = json_pack("{s:{s:s, s:O, s:O}, s:o, s:{s:s}, s:[]}", "model", "type",
                                       "BPE", "vocab", vocab, "merges", merges, "pre_tokenizer",
                                       words, "decoder", "type", "ByteLevel", "added_tokens");
    if (document && kind == CLASS_QWEN2)
        json_object_set_new(document, "normalizer", json_pack("{s:s}", "type", "NFC"));
    return document;
}

static nyb_status no_token(const char *name, const char *key, const char *text, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT, "%s: lacks the token '%.100s', which is its %s", name, text,
                    key);
}

// [CLS] text [SEP] in both forms that a post-processor has.
static nyb_status surround(json_t *document, const nyb_tokenizer_config *config,
                           const json_t *vocab, bool bert, const char *name, nyb_err *err)
{
    const char *const cls = token_of(config, "cls_token", bert ? "[CLS]" : "<s>");
    const char *const sep = token_of(config, "sep_token", bert ? "[SEP]" : "</s>");
    json_t *const cls_id = json_object_get(vocab, cls), *const sep_id = json_object_get(vocab, sep);
    if (!cls_id)
        return no_token(name, "cls_token", cls, err);
    if (!sep_id)
        return no_token(name, "sep_token", sep, err);
    json_object_set_new(document, "post_processor",
                        json_pack("{s:s, s:[s, O], s:[s, O]}", "type", "BertProcessing", "cls", cls,
                                  cls_id, "sep", sep, sep_id));
    return NYB_OK;
}

// Lines of a file that lives in the arena, without their ends. Python's readlines() ends a line at
// LF, CR and CR LF.
static char *next_line(char **at, const char *end)
{
    char *const line = *at;
    while (*at < end && **at != '\n' && **at != '\r')
        (*at)++;
    char *const stop = *at;
    if (*at < end)
        *at += **at == '\r' && *at + 1 < end && (*at)[1] == '\n' ? 2 : 1;
    *stop = '\0'; // the file is followed by one
    return line;
}

static nyb_status read_merges(json_t *out, nyb_arena *arena, const char *path, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    nyb_status status = nyb_file_read(arena, path, FILE_LIMIT, &text, &length, err);
    if (status != NYB_OK)
        return status;
    for (char *at = text; at < text + length;) {
        const char *const line = next_line(&at, text + length);
        if (*line == '\0' || strncmp(line, "#version:", 9) == 0)
            continue;
        if (json_array_append_new(out, json_string(line)) != 0)
            return nyb_fail(err, NYB_E_FORMAT, "%s: merge %zu is not UTF-8", path,
                            json_array_size(out));
    }
    return NYB_OK;
}

static void find_ends(nyb_tokenizer *t, files_class kind)
{
    const char *const usual = kind == CLASS_ROBERTA ? "</s>" : "<|endoftext|>";
    t->eos = nyb_tokenizer_find(t, usual, strlen(usual));
    t->bos = kind == CLASS_QWEN2     ? -1
             : kind == CLASS_ROBERTA ? nyb_tokenizer_find(t, "<s>", 3)
                                     : t->eos;
}

nyb_status nyb_tokenizer_load_merges(nyb_tokenizer *t, const nyb_tokenizer_config *config,
                                     const char *vocab_path, const char *merges_path,
                                     bool *with_ends, nyb_err *err)
{
    files_class kind = CLASS_GPT2;
    json_t *vocab = NULL, *document = NULL, *const merges = json_array();
    nyb_status status = find_class(config, CLASS_GPT2, &kind, vocab_path, err);
    if (status == NYB_OK)
        status = merges ? nyb_json_load(&vocab, vocab_path, err) : nyb_no_memory(err, "it", 1, 1);
    if (status == NYB_OK)
        status = read_merges(merges, &t->arena, merges_path, err);
    if (status == NYB_OK) {
        document = byte_level_document(kind, config, vocab, merges);
        if (!document)
            status = nyb_no_memory(err, "a tokenizer", json_array_size(merges), 1);
    }
    if (status == NYB_OK && kind == CLASS_ROBERTA)
        status = surround(document, config, vocab, false, vocab_path, err);
    if (status == NYB_OK) {
        static const char *const roberta[] = {"<s>", "</s>", "<unk>", "<pad>", "<mask>"};
        for (size_t i = 0; i < 5 && kind == CLASS_ROBERTA; i++)
            add_token(document, vocab, roberta[i]);
        if (kind != CLASS_ROBERTA)
            add_token(document, vocab, "<|endoftext|>");
        status = nyb_tokenizer_load_document(t, document, vocab_path, err);
    }
    if (status == NYB_OK)
        find_ends(t, kind);
    *with_ends = kind != CLASS_ROBERTA;
    json_decref(document);
    json_decref(merges);
    json_decref(vocab);
    return status;
}

// Ids by text; of two equal lines the last one's counts.
static nyb_status read_lines(json_t *out, nyb_arena *arena, const char *path, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    nyb_status status = nyb_file_read(arena, path, FILE_LIMIT, &text, &length, err);
    json_int_t id = 0;
    for (char *at = text; status == NYB_OK && at < text + length; id++) {
        const char *const line = next_line(&at, text + length);
        if (id >= NYB_TOKEN_ID_LIMIT)
            return nyb_fail(err, NYB_E_FORMAT, "%s: has more than %d tokens", path,
                            NYB_TOKEN_ID_LIMIT);
        if (json_object_set_new(out, line, json_integer(id)) != 0)
            return nyb_fail(err, NYB_E_FORMAT, "%s: line %d is not UTF-8", path, (int) id + 1);
    }
    return status;
}

static json_t *bert_document(const nyb_tokenizer_config *config, json_t *vocab)
{
    const json_t *const accents = json_object_get(config->tokenizer, "strip_accents");
    const int lower = !json_is_false(json_object_get(config->tokenizer, "do_lower_case"));
    const int chinese =
        !json_is_false(json_object_get(config->tokenizer, "tokenize_chinese_chars"));
    return json_pack("{s:{s:s, s:O, s:s, s:s, s:i}, s:{s:s, s:b, s:b, s:b, s:b}, s:{s:s}, "
                     "s:{s:s, s:s, s:b}, s:[]}",
                     "model", "type", "WordPiece", "vocab", vocab, "unk_token",
                     token_of(config, "unk_token", "[UNK]"), "continuing_subword_prefix", "##",
                     "max_input_chars_per_word", 100, "normalizer", "type", "BertNormalizer",
                     "clean_text", 1, "handle_chinese_chars", chinese, "lowercase", lower,
                     "strip_accents", json_is_boolean(accents) ? json_is_true(accents) : lower,
                     "pre_tokenizer", "type", "BertPreTokenizer", "decoder", "type", "WordPiece",
                     "prefix", "##", "cleanup", 1, "added_tokens");
}

nyb_status nyb_tokenizer_load_lines(nyb_tokenizer *t, const nyb_tokenizer_config *config,
                                    const char *path, nyb_err *err)
{
    static const char *const keys[] = {"unk_token", "sep_token", "pad_token", "cls_token",
                                       "mask_token"};
    static const char *const usual[] = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"};
    files_class kind = CLASS_BERT;
    json_t *document = NULL, *const vocab = json_object();
    nyb_status status = find_class(config, CLASS_BERT, &kind, path, err);
    if (status == NYB_OK)
        status = vocab ? read_lines(vocab, &t->arena, path, err) : nyb_no_memory(err, path, 1, 1);
    if (status == NYB_OK) {
        document = bert_document(config, vocab);
        status = document ? surround(document, config, vocab, true, path, err)
                          : nyb_no_memory(err, path, json_object_size(vocab), 1);
    }
    if (status == NYB_OK) {
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            add_token(document, vocab, token_of(config, keys[i], usual[i]));
        status = nyb_tokenizer_load_document(t, document, path, err);
    }
    if (status == NYB_OK)
        t->pad = nyb_tokenizer_find(t, "[PAD]", 5);
    json_decref(document);
    json_decref(vocab);
    return status;
}
