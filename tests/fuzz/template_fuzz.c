#include "model/jinja.h"
#include "model/unicode.h"
#include "tests/fuzz/fuzz.h"

// A chat template, run on one conversation.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const char variables[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \" Be brief. \"},"
        "{\"role\": \"user\", \"content\": \"na\xc3\xafve\"},"
        "{\"role\": \"assistant\", \"content\": \"<think>a</think> b\"}],"
        "\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"tools\": null}";
    const char *const text = length > 0 ? (const char *) bytes : "";
    nyb_jinja *jinja = NULL;
    nyb_bytes out = {0};
    nyb_ranges generated = {0};
    nyb_err err;
    if (nyb_utf8_valid(text, length) < length ||
        nyb_jinja_open(&jinja, text, length, &err) != NYB_OK)
        return 0;
    json_t *const values = json_loads(variables, 0, NULL);
    if (nyb_jinja_render(jinja, values, &out, &generated, &err) == NYB_OK)
        fuzz_accept();
    json_decref(values);
    nyb_bytes_clear(&out);
    nyb_ranges_clear(&generated);
    nyb_jinja_close(jinja);
    return 0;
}
