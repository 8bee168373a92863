#include "eval/report_page.h"
#include "tests/fuzz/fuzz.h"

// Records of measured checkpoints, made into a page and a picture.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    nyb_report_data data = {0};
    nyb_bytes out = {0};
    nyb_err err;
    nyb_page page = {.out = &out, .data = &data, .err = &err};
    nyb_status status =
        nyb_report_load_lines(&data, "input", length > 0 ? (const char *) bytes : "", length, &err);
    if (status == NYB_OK)
        status = nyb_report_digest(&data, &err);
    if (status == NYB_OK)
        status = nyb_page_write(&page);
    if (status == NYB_OK)
        fuzz_accept();
    nyb_bytes_reset(&out);
    if (status == NYB_OK)
        status = nyb_page_picture(&page);
    nyb_bytes_clear(&out);
    nyb_report_clear(&data);
    return 0;
}
