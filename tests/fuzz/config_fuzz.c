#include "model/config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_model_config config;
    json_t *document = NULL;
    nyb_err err;
    if (nyb_json_parse(&document, (const char *) bytes, length, "fuzz", &err) != NYB_OK)
        return 0;
    if (nyb_model_config_read(&config, document, "fuzz", &err) == NYB_OK)
        fuzz_accept();
    json_decref(document);
    return 0;
}
