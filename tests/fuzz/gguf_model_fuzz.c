#include "formats/checkpoint.h"
#include "model/config.h"
#include "model/gguf_config.h"
#include "nybble/tokenizer.h"
#include "tests/fuzz/fuzz.h"

// What a model is made of when it is one GGUF file: names, configuration, tokenizer.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static nyb_model_config config;
    static const char text[] = "A <s> b\xc3\xa9 12 \n";
    nyb_checkpoint *file = NULL;
    nyb_tokenizer *t = NULL;
    nyb_tokens ids = {0};
    json_t *doc = NULL;
    nyb_err err;
    bool good = false;
    const char *const path = fuzz_file(bytes, length);
    if (nyb_checkpoint_open(&file, path, &err) == NYB_OK) {
        const nyb_gguf *const gguf = nyb_checkpoint_gguf(file);
        if (gguf && nyb_gguf_config(&doc, gguf, &err) == NYB_OK &&
            nyb_model_config_read(&config, doc, "fuzz", &err) == NYB_OK)
            good = true;
        json_decref(doc);
        nyb_checkpoint_close(file);
    }
    if (nyb_tokenizer_open(&t, path, NULL, &err) == NYB_OK) {
        char *back = NULL;
        size_t count = 0;
        good = true;
        if (nyb_tokenizer_encode(t, text, sizeof(text) - 1, true, &ids, &err) == NYB_OK &&
            nyb_tokenizer_decode(t, ids.at, ids.count, false, &back, &count, &err) == NYB_OK)
            nyb_text_free(back);
        nyb_tokens_clear(&ids);
        nyb_tokenizer_close(t);
    }
    if (good)
        fuzz_accept();
    return 0;
}
