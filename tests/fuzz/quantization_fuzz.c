#include "core/json.h"
#include "formats/quantization.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    json_t *config = NULL;
    nyb_quantization *rules = NULL;
    nyb_quantized layer;
    nyb_err err;
    if (nyb_json_parse(&config, (const char *) bytes, length, "fuzz", &err) != NYB_OK)
        return 0;
    if (nyb_quantization_open(&rules, config, "fuzz", &err) == NYB_OK) {
        fuzz_accept();
        (void) !nyb_quantization_of(&layer, rules, "model.layers.0.mlp.down_proj", &err);
        (void) !nyb_quantization_of(&layer, rules, "lm_head", &err);
        nyb_quantization_close(rules);
    }
    json_decref(config);
    return 0;
}
