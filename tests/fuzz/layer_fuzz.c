#include "formats/layout_parts.h"
#include "tests/fuzz/fuzz.h"

// Reads the module "m" in this shape. Whether any group size and symmetry let it.
static bool read_layer(const nyb_checkpoint *file, const nyb_layout *layout, unsigned bits,
                       const size_t shape[2])
{
    nyb_qweight q;
    nyb_err err;
    bool taken = false;
    for (unsigned i = 0; i < 4; i++) {
        const nyb_layout_spec spec = {.rows = shape[0],
                                      .cols = shape[1],
                                      .bits = bits,
                                      .group_size = i & 1 ? 32 : 0,
                                      .symmetric = i & 2};
        if (layout->unpack(&q, file, "m", &spec, &err) != NYB_OK)
            continue;
        taken = true;
        nyb_qweight_clear(&q);
    }
    return taken;
}

// Codes that have a byte each, in a tensor of the weight's own shape.
static bool read_bytes(const nyb_checkpoint *file, const nyb_tensor *weight)
{
    static const struct {
        const nyb_layout *layout;
        nyb_layout_spec spec;
    } kinds[] = {
        {&nyb_layout_int_quantized, {.bits = 8, .symmetric = true}},
        {&nyb_layout_int_quantized, {.bits = 4, .group_size = 32}},
        {&nyb_layout_float_quantized, {.kind = NYB_CODE_E4M3, .bits = 8}},
        {&nyb_layout_float_quantized, {.kind = NYB_CODE_E4M3, .bits = 8, .scale_rows = SIZE_MAX}},
        {&nyb_layout_fp8, {.kind = NYB_CODE_E4M3, .bits = 8, .group_size = 128, .scale_rows = 128}},
    };
    bool taken = false;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        nyb_layout_spec spec = kinds[k].spec;
        nyb_qweight q;
        nyb_err err;
        spec.rows = weight->shape[0];
        spec.cols = weight->shape[1];
        if (kinds[k].layout->unpack(&q, file, "m", &spec, &err) != NYB_OK)
            continue;
        taken = true;
        nyb_qweight_clear(&q);
    }
    return taken;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const unsigned widths[] = {2, 3, 4, 8};
    nyb_checkpoint *file = NULL;
    nyb_err err;
    bool taken = false;
    if (nyb_checkpoint_open(&file, fuzz_file(bytes, length), &err) != NYB_OK)
        return 0;
    const nyb_tensor *const down = nyb_checkpoint_find(file, "m.qweight");
    const nyb_tensor *const across = nyb_checkpoint_find(file, "m.weight_packed");
    for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++) {
        for (size_t i = 0; i < nyb_layout_count(); i++) {
            const size_t factor = widths[w] == 3 ? 10 : 32 / widths[w];
            // Shapes that fit the packed codes, so that the other tensors are looked at.
            if (down)
                taken |=
                    read_layer(file, nyb_layout_at(i), widths[w],
                               (const size_t[]){down->shape[1], down->shape[0] * 32 / widths[w]});
            if (across)
                taken |= read_layer(file, nyb_layout_at(i), widths[w],
                                    (const size_t[]){across->shape[0], across->shape[1] * factor});
        }
    }
    const nyb_tensor *const bytes_each = nyb_checkpoint_find(file, "m.weight");
    if (bytes_each && bytes_each->rank == 2)
        taken |= read_bytes(file, bytes_each);
    nyb_checkpoint_close(file);
    if (taken)
        fuzz_accept();
    return 0;
}
