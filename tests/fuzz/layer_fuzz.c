#include "formats/layout.h"
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
    nyb_checkpoint_close(file);
    if (taken)
        fuzz_accept();
    return 0;
}
