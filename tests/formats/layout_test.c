#include "tests/test.h"

#include <math.h>

#include "core/dtype.h"
#include "formats/layout.h"
#include "formats/quantization.h"
#include "kernels/pack.h"
#include "nybble/qweight.h"
#include "tests/formats/folder.h"

static const unsigned bit_widths[] = {2, 3, 4, 8};

// ---- Bits -----------------------------------------------------------------------------------

static uint32_t word_at(const void *words, size_t i)
{
    uint32_t word;
    memcpy(&word, (const unsigned char *) words + i * 4, 4);
    return word;
}

static void ramps_give_the_documented_words(void **state)
{
    uint8_t codes[32];
    uint32_t words[8];
    (void) state;
    for (unsigned i = 0; i < 32; i++)
        codes[i] = (uint8_t) (i % 8);
    nyb_pack_row(words, codes, 8, 4);
    assert_int_equal(words[0], 0x76543210);
    nyb_pack_row(words, codes, 32, 3);
    assert_int_equal(words[0], 0x88fac688);
    assert_int_equal(words[1], 0xc688fac6);
    assert_int_equal(words[2], 0xfac688fa);
    nyb_pack_row(words, codes, 4, 8);
    assert_int_equal(words[0], 0x03020100);
    nyb_pack_row(words, (const uint8_t[]){3, 0, 1, 2}, 4, 2);
    assert_int_equal(words[0], 0x93);
}

// Bit k of code i is bit (bits * i + k) of the stream, for every length; nothing beyond the
// words is touched, and the bits behind the last code are 0.
static void packing_is_a_bit_stream(void **state)
{
    uint64_t seed = 1;
    (void) state;
    for (unsigned bits = 1; bits <= 8; bits++) {
        for (size_t n = 0; n <= 131; n++) {
            uint8_t codes[131], back[132];
            unsigned char words[140], want[140];
            memset(words, 0xa5, sizeof(words));
            memset(want, 0xa5, sizeof(want));
            memset(back, 0x5a, sizeof(back));
            memset(want, 0, nyb_pack_words(n, bits) * 4);
            for (size_t i = 0; i < n; i++) {
                codes[i] = (uint8_t) nyb_random_below(&seed, 1u << bits);
                for (size_t k = 0; k < bits; k++)
                    want[(bits * i + k) / 8] |=
                        (unsigned char) ((codes[i] >> k & 1) << (bits * i + k) % 8);
            }
            assert_int_equal(nyb_pack_words(n, bits), (n * bits + 31) / 32);
            nyb_pack_row(words, codes, n, bits);
            assert_memory_equal(words, want, sizeof(words));
            nyb_unpack_row(back, words, n, bits);
            if (n)
                assert_memory_equal(back, codes, n);
            assert_int_equal(back[n], 0x5a);
        }
    }
}

static void packing_down_is_packing_transposed(void **state)
{
    uint64_t seed = 2;
    (void) state;
    for (unsigned round = 0; round < 60; round++) {
        const unsigned bits = bit_widths[round % 4];
        const size_t rows = 1 + nyb_random_below(&seed, 40), cols = 1 + nyb_random_below(&seed, 99);
        const size_t words = nyb_pack_words(cols, bits);
        uint8_t *const codes = malloc(rows * cols), *const back = malloc(rows * cols);
        unsigned char *const down = malloc(words * rows * 4), *const row = malloc(words * 4);
        for (size_t k = 0; k < rows * cols; k++)
            codes[k] = (uint8_t) nyb_random_below(&seed, 1u << bits);
        nyb_pack_down(down, codes, rows, cols, bits);
        for (size_t i = 0; i < rows; i++) {
            nyb_pack_row(row, codes + i * cols, cols, bits);
            for (size_t w = 0; w < words; w++)
                assert_int_equal(word_at(down, w * rows + i), word_at(row, w));
        }
        nyb_unpack_down(back, down, rows, cols, bits);
        assert_memory_equal(back, codes, rows * cols);
        free(codes);
        free(back);
        free(down);
        free(row);
    }
}

// ---- Layers ---------------------------------------------------------------------------------

typedef struct shape {
    size_t rows, cols, group;
    unsigned bits;
    bool symmetric, irregular;
    nyb_dtype scale_dtype;
} shape;

static void shuffle(uint32_t *at, size_t n, uint64_t *seed)
{
    for (size_t i = n; i > 1; i--) {
        const size_t k = (size_t) nyb_random_below(seed, i);
        const uint32_t other = at[k];
        at[k] = at[i - 1];
        at[i - 1] = other;
    }
}

static nyb_qweight random_layer(const shape *s, unsigned lowest_zero, uint64_t *seed)
{
    nyb_qweight q;
    assert_ok(nyb_qweight_init(&q, s->rows, s->cols, s->bits, s->group, err));
    q.symmetric = s->symmetric;
    q.scale_dtype = s->scale_dtype;
    for (size_t k = 0; k < q.rows * q.cols; k++)
        q.codes[k] = (uint8_t) nyb_random_below(seed, 1u << q.bits);
    for (size_t k = 0; k < q.rows * q.groups; k++) {
        q.scales[k] = nyb_round_to(0.001f + (float) nyb_random_unit(seed), s->scale_dtype);
        q.zeros[k] =
            (uint8_t) (q.symmetric
                           ? 1u << (q.bits - 1)
                           : lowest_zero + nyb_random_below(seed, (1u << q.bits) - lowest_zero));
    }
    if (s->irregular)
        shuffle(q.group_of, q.cols, seed);
    q.irregular = s->irregular;
    return q;
}

static void assert_same_layer(const nyb_qweight *a, const nyb_qweight *b)
{
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    assert_int_equal(a->groups, b->groups);
    assert_int_equal(a->group_size, b->group_size);
    assert_int_equal(a->bits, b->bits);
    assert_int_equal(a->symmetric, b->symmetric);
    assert_int_equal(a->irregular, b->irregular);
    assert_int_equal(a->scale_dtype, b->scale_dtype);
    assert_memory_equal(a->codes, b->codes, a->rows * a->cols);
    assert_memory_equal(a->scales, b->scales, a->rows * a->groups * sizeof(float));
    assert_memory_equal(a->zeros, b->zeros, a->rows * a->groups);
    assert_memory_equal(a->group_of, b->group_of, a->cols * sizeof(uint32_t));
}

// Writes one layer into a folder, by the layout and the store.
static void write_layer(folder *f, const nyb_layout *layout, const nyb_qweight *q)
{
    nyb_arena arena = {0};
    nyb_tensor tensors[NYB_LAYOUT_TENSORS];
    size_t count = 0;
    nyb_store *store = NULL;
    const nyb_layout_spec spec = nyb_layout_spec_of(q);
    assert_ok(layout->check(&spec, "m.q", err));
    assert_ok(layout->tensors(tensors, &count, &spec, "m.q", &arena, err));
    assert_ok(nyb_store_create(&store, f->path, tensors, count, 0, err));
    assert_ok(nyb_layout_put(layout, store, "m.q", q, err));
    assert_ok(nyb_store_finish(store, err));
    nyb_store_close(store);
    nyb_arena_clear(&arena);
}

static json_t *config_of(const nyb_layout *layout, const nyb_qweight *q)
{
    const nyb_layout_module module = {
        .name = "m.q", .quantized = true, .spec = nyb_layout_spec_of(q)};
    const nyb_layout_run run = {.modules = &module, .count = 1, .damp = 0.01};
    json_t *const config = layout->config(&run);
    assert_non_null(config);
    return json_pack("{s:o}", "quantization_config", config);
}

// What is packed comes back unchanged, through the configuration that goes with it.
static void round_trip(const nyb_layout *layout, const shape *s, uint64_t *seed)
{
    folder f;
    nyb_checkpoint *c = NULL;
    nyb_quantization *quantization = NULL;
    nyb_qweight back, q = random_layer(s, layout->lowest_zero, seed);
    json_t *const config = config_of(layout, &q);

    folder_make(&f);
    write_layer(&f, layout, &q);
    assert_ok(nyb_checkpoint_open(&c, f.path, err));
    assert_ok(nyb_quantization_open(&quantization, config, "config.json", err));
    assert_ok(nyb_quantization_read(&back, quantization, c, "m.q", s->rows, s->cols, err));
    assert_same_layer(&q, &back);
    nyb_qweight_clear(&back);
    nyb_qweight_clear(&q);
    nyb_quantization_close(quantization);
    nyb_checkpoint_close(c);
    json_decref(config);
    folder_clear(&f);
}

static void gptq_layers_come_back(void **state)
{
    static const size_t groups[] = {0, 16, 32, 64};
    uint64_t seed = 3;
    unsigned seen = 0;
    (void) state;
    for (unsigned round = 0; round < 256; round++) {
        const unsigned bits = bit_widths[round % 4];
        shape s = {.rows = 32 * (1 + nyb_random_below(&seed, 3)),
                   .cols = 32 * (1 + nyb_random_below(&seed, 5)),
                   .group = groups[round / 4 % 4],
                   .bits = bits,
                   .symmetric = round / 16 % 2,
                   .scale_dtype = NYB_F16};
        if (bits != 3)
            s.cols += 32 / bits * nyb_random_below(&seed, 3);
        if (s.group > s.cols)
            s.group = 0;
        s.irregular = round / 32 % 2 && s.group && s.group < s.cols;
        seen += s.irregular;
        round_trip(nyb_layout_by_name(round / 64 % 2 ? "gptq_v2" : "gptq"), &s, &seed);
    }
    assert_true(seen > 20);
}

static void compressed_layers_come_back(void **state)
{
    static const nyb_dtype dtypes[] = {NYB_F16, NYB_BF16, NYB_F32};
    uint64_t seed = 4;
    (void) state;
    for (unsigned round = 0; round < 256; round++) {
        shape s = {.rows = 1 + nyb_random_below(&seed, 70),
                   .group = round / 4 % 2 ? 1 + nyb_random_below(&seed, 40) : 0,
                   .bits = bit_widths[round % 4],
                   .symmetric = round / 8 % 2,
                   .scale_dtype = dtypes[round % 3]};
        // The one shape that the layout refuses because of its reader.
        if (s.bits == 4 && s.group && !s.symmetric)
            s.rows += 8;
        s.cols =
            s.group ? s.group * (2 + nyb_random_below(&seed, 5)) : 1 + nyb_random_below(&seed, 300);
        round_trip(nyb_layout_by_name("compressed-tensors"), &s, &seed);
    }
}

static void awq_layers_come_back(void **state)
{
    static const size_t groups[] = {0, 32, 64, 128};
    uint64_t seed = 9;
    (void) state;
    for (unsigned round = 0; round < 128; round++) {
        const size_t group = groups[round % 4];
        const shape s = {.rows = 8 * (1 + nyb_random_below(&seed, 9)),
                         .cols = group ? group * (1 + nyb_random_below(&seed, 3))
                                       : 1 + nyb_random_below(&seed, 99),
                         .group = group,
                         .bits = 4,
                         .scale_dtype = NYB_F16};
        round_trip(nyb_layout_by_name("awq"), &s, &seed);
    }
}

// The table of layouts is whole and every entry is found by its name.
static void layouts_are_complete(void **state)
{
    (void) state;
    assert_int_equal(nyb_layout_count(), 4);
    for (size_t i = 0; i < nyb_layout_count(); i++) {
        const nyb_layout *const layout = nyb_layout_at(i);
        assert_ptr_equal(nyb_layout_by_name(layout->name), layout);
        assert_true(layout->about && layout->marker && layout->scale_dtype && layout->check &&
                    layout->tensors && layout->pack && layout->unpack && layout->config);
    }
    assert_null(nyb_layout_by_name("marlin"));
    assert_int_equal(nyb_layout_by_name("gptq")->scale_dtype(NYB_BF16), NYB_F16);
    assert_int_equal(nyb_layout_by_name("compressed-tensors")->scale_dtype(NYB_BF16), NYB_BF16);
}

static nyb_status check(const char *layout, nyb_layout_spec spec, nyb_err *err)
{
    return nyb_layout_by_name(layout)->check(&spec, "m.q", err);
}

static void what_readers_cannot_take_is_refused(void **state)
{
    const nyb_layout_spec good = {.rows = 64,
                                  .cols = 128,
                                  .bits = 4,
                                  .group_size = 32,
                                  .symmetric = true,
                                  .scale_dtype = NYB_F16};
    nyb_layout_spec s = good;
    (void) state;
    assert_ok(check("gptq", s, err));
    assert_ok(check("compressed-tensors", s, err));
    s.rows = 72;
    assert_fails(check("gptq", s, err), NYB_E_UNSUPPORTED, "72");
    assert_ok(check("compressed-tensors", s, err));
    s = good, s.cols = 172, s.group_size = 0;
    assert_fails(check("gptq", s, err), NYB_E_UNSUPPORTED, "172");
    assert_ok(check("compressed-tensors", s, err));
    s = good, s.bits = 3, s.cols = 144, s.group_size = 0;
    assert_fails(check("gptq", s, err), NYB_E_UNSUPPORTED, "32 input columns");
    s = good, s.group_size = 48;
    assert_fails(check("gptq", s, err), NYB_E_UNSUPPORTED, "48");
    assert_fails(check("compressed-tensors", s, err), NYB_E_UNSUPPORTED, "whole groups");
    s = good, s.irregular = true;
    assert_ok(check("gptq", s, err));
    assert_fails(check("compressed-tensors", s, err), NYB_E_UNSUPPORTED, "--activation-order");
    s = good, s.bits = 8;
    assert_fails(check("awq", s, err), NYB_E_UNSUPPORTED, "8-bit ones");
    s = good, s.bits = 8, s.kind = NYB_CODE_E4M3;
    assert_fails(check("awq", s, err), NYB_E_UNSUPPORTED, "8-bit floats");
    s = good, s.irregular = true;
    assert_fails(check("awq", s, err), NYB_E_UNSUPPORTED, "order of their own");
    s = good, s.rows = 60;
    assert_fails(check("awq", s, err), NYB_E_UNSUPPORTED, "8 output features");
    s = good, s.group_size = 16;
    assert_fails(check("awq", s, err), NYB_E_UNSUPPORTED, "not 16");
    s = good, s.cols = 80;
    assert_fails(check("awq", s, err), NYB_E_UNSUPPORTED, "80 columns");
    s = good, s.scale_dtype = NYB_F32;
    assert_fails(check("awq", s, err), NYB_E_ARG, "F16");
    s = good, s.symmetric = false, s.rows = 8;
    assert_fails(check("compressed-tensors", s, err), NYB_E_UNSUPPORTED, "8 outputs");
    s = good, s.scale_dtype = NYB_BF16;
    assert_fails(check("gptq", s, err), NYB_E_ARG, "F16");
    s = good, s.bits = 5;
    assert_fails(check("gptq", s, err), NYB_E_ARG, "5");
    s = good, s.bits = 0;
    assert_fails(check("gptq", s, err), NYB_E_ARG, "0");
    s = good, s.group_size = 256;
    assert_fails(check("compressed-tensors", s, err), NYB_E_ARG, "256");
}

// Packs into memory of exactly the right length.
static nyb_status pack_only(const char *name, const nyb_qweight *q, nyb_err *err)
{
    const nyb_layout *const layout = nyb_layout_by_name(name);
    const nyb_layout_spec spec = nyb_layout_spec_of(q);
    nyb_arena arena = {0};
    nyb_tensor tensors[NYB_LAYOUT_TENSORS];
    void *buffers[NYB_LAYOUT_TENSORS];
    size_t count = 0;
    assert_int_equal(layout->tensors(tensors, &count, &spec, "m.q", &arena, NULL), NYB_OK);
    for (size_t i = 0; i < count; i++)
        buffers[i] = malloc(tensors[i].bytes);
    const nyb_status status = layout->pack(q, buffers, "m.q", err);
    for (size_t i = 0; i < count; i++)
        free(buffers[i]);
    nyb_arena_clear(&arena);
    return status;
}

static void values_that_do_not_fit_are_refused(void **state)
{
    const shape s = {.rows = 32, .cols = 64, .group = 32, .bits = 4, .scale_dtype = NYB_F16};
    uint64_t seed = 6;
    nyb_qweight q = random_layer(&s, 1, &seed);
    (void) state;
    assert_ok(pack_only("gptq", &q, err));
    q.zeros[5] = 0;
    assert_fails(pack_only("gptq", &q, err), NYB_E_UNSUPPORTED, "zero point 0 at row 2, group 1");
    assert_ok(pack_only("gptq_v2", &q, err));
    assert_ok(pack_only("compressed-tensors", &q, err));
    q.zeros[5] = 16;
    assert_fails(pack_only("gptq_v2", &q, err), NYB_E_UNSUPPORTED, "zero point 16");
    q.zeros[5] = 15;
    q.codes[70] = 16;
    assert_fails(pack_only("gptq", &q, err), NYB_E_UNSUPPORTED, "code 16 at row 1, column 6");
    q.codes[70] = 15;
    q.scales[3] = 0.1f; // not a half
    assert_fails(pack_only("gptq", &q, err), NYB_E_UNSUPPORTED, "F16");
    q.scales[3] = NAN;
    assert_fails(pack_only("gptq", &q, err), NYB_E_UNSUPPORTED, "nan");
    q.scales[3] = 0.0f;
    assert_fails(pack_only("compressed-tensors", &q, err), NYB_E_UNSUPPORTED, "scale 0");
    q.scales[3] = 0.5f;
    q.symmetric = true;
    assert_fails(pack_only("compressed-tensors", &q, err), NYB_E_UNSUPPORTED, "[8, 8]");
    nyb_qweight_clear(&q);
}

// ---- Damaged layers -------------------------------------------------------------------------

typedef struct damage {
    const char *tensor; // "qzeros"
    size_t at;          // byte
    unsigned char bytes[4];
    nyb_status status;
    const char *part;
} damage;

// Writes a layer, overwrites four bytes of one tensor, and reads it.
static void read_damaged(const nyb_layout *layout, const shape *s, const damage *d)
{
    uint64_t seed = 8;
    folder f;
    nyb_checkpoint *c = NULL;
    nyb_quantization *quantization = NULL;
    nyb_qweight back, q = random_layer(s, layout->lowest_zero, &seed);
    json_t *const config = config_of(layout, &q);

    folder_make(&f);
    write_layer(&f, layout, &q);
    const char *const path = folder_file(&f, "model.safetensors");
    assert_ok(nyb_checkpoint_open(&c, f.path, err));
    const nyb_tensor *const tensor =
        nyb_checkpoint_find(c, nyb_arena_format(&f.arena, "m.q.%s", d->tensor));
    assert_non_null(tensor);
    size_t bytes = 0;
    const unsigned char *const whole = nyb_checkpoint_file_bytes(c, 0, &bytes);
    const size_t offset = (size_t) ((const unsigned char *) tensor->at - whole) + d->at;
    nyb_checkpoint_close(c);
    FILE *const file = fopen(path, "r+b");
    assert_int_equal(fseek(file, (long) offset, SEEK_SET), 0);
    assert_int_equal(fwrite(d->bytes, 1, 4, file), 4);
    assert_int_equal(fclose(file), 0);

    assert_ok(nyb_checkpoint_open(&c, f.path, err));
    assert_ok(nyb_quantization_open(&quantization, config, "config.json", err));
    assert_fails(nyb_quantization_read(&back, quantization, c, "m.q", s->rows, s->cols, err),
                 d->status, d->part);
    assert_null(back.codes);
    nyb_qweight_clear(&q);
    nyb_quantization_close(quantization);
    nyb_checkpoint_close(c);
    json_decref(config);
    folder_clear(&f);
}

static void damaged_layers_are_refused(void **state)
{
    const shape s = {.rows = 32, .cols = 64, .group = 32, .bits = 4, .scale_dtype = NYB_F16};
    const damage gptq[] = {
        {"g_idx", 0, {2, 0, 0, 0}, NYB_E_FORMAT, "group 2 of 2"},
        {"g_idx", 60, {255, 255, 255, 255}, NYB_E_FORMAT, "group -1 of 2"},
        {"scales", 0, {0, 0x7c, 0, 0}, NYB_E_FORMAT, "inf"},
        {"scales", 4, {0, 0x7e, 0, 0}, NYB_E_FORMAT, "nan"},
        {"scales", 8, {0, 0x80, 0, 0}, NYB_E_FORMAT, "scale -0"},
        {"scales", 8, {0, 0xbc, 0, 0}, NYB_E_FORMAT, "scale -1"},
        {"qzeros", 0, {0x7f, 0, 0, 0}, NYB_E_UNSUPPORTED, "means 0 to some"},
    };
    const damage compressed[] = {
        {"weight_shape", 0, {33, 0, 0, 0}, NYB_E_FORMAT, "33 x 64"},
        {"weight_shape", 12, {1, 0, 0, 0}, NYB_E_FORMAT, "x 4294967360"},
        {"weight_scale", 0, {0, 0x7c, 0, 0}, NYB_E_FORMAT, "inf"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(gptq) / sizeof(gptq[0]); i++)
        read_damaged(nyb_layout_by_name("gptq"), &s, &gptq[i]);
    for (size_t i = 0; i < sizeof(compressed) / sizeof(compressed[0]); i++)
        read_damaged(nyb_layout_by_name("compressed-tensors"), &s, &compressed[i]);
}

// A symmetric file whose configuration names the other version is found out.
static void mislabelled_versions_are_refused(void **state)
{
    (void) state;
    for (unsigned i = 0; i < 8; i++) {
        const shape s = {.rows = 32,
                         .cols = 64,
                         .group = 32,
                         .bits = bit_widths[i / 2],
                         .symmetric = true,
                         .scale_dtype = NYB_F16};
        const nyb_layout *const written = nyb_layout_by_name(i % 2 ? "gptq" : "gptq_v2");
        const nyb_layout *const claimed = nyb_layout_by_name(i % 2 ? "gptq_v2" : "gptq");
        const nyb_layout_spec spec = {.rows = 32,
                                      .cols = 64,
                                      .bits = s.bits,
                                      .group_size = 32,
                                      .symmetric = true,
                                      .scale_dtype = NYB_F16};
        uint64_t seed = 9;
        folder f;
        nyb_checkpoint *c = NULL;
        nyb_qweight back, q = random_layer(&s, 1, &seed);
        folder_make(&f);
        write_layer(&f, written, &q);
        assert_ok(nyb_checkpoint_open(&c, f.path, err));
        assert_fails(claimed->unpack(&back, c, "m.q", &spec, err), NYB_E_FORMAT,
                     i % 2 ? "holds the zero points of gptq,"
                           : "holds the zero points of gptq_v2,");
        nyb_checkpoint_close(c);
        nyb_qweight_clear(&q);
        folder_clear(&f);
    }
}

// Shapes that the tensors do not have are refused before memory is taken for them.
static void wrong_shapes_are_refused(void **state)
{
    const shape s = {.rows = 32, .cols = 64, .group = 32, .bits = 4, .scale_dtype = NYB_F16};
    (void) state;
    for (size_t i = 0; i < nyb_layout_count(); i++) {
        const nyb_layout *const layout = nyb_layout_at(i);
        uint64_t seed = 10;
        folder f;
        nyb_checkpoint *c = NULL;
        nyb_qweight back, q = random_layer(&s, layout->lowest_zero, &seed);
        folder_make(&f);
        write_layer(&f, layout, &q);
        assert_ok(nyb_checkpoint_open(&c, f.path, err));
        for (unsigned k = 0; k < 6; k++) {
            nyb_layout_spec spec = {.rows = 32,
                                    .cols = 64,
                                    .bits = 4,
                                    .group_size = 32,
                                    .symmetric = false,
                                    .scale_dtype = NYB_F16};
            spec.rows = k == 0 ? 64 : k == 1 ? (size_t) 1 << 40 : 32;
            spec.cols = k == 2 ? 96 : k == 3 ? (size_t) 1 << 31 : 64;
            spec.bits = k == 4 ? 8 : 4;
            spec.group_size = k == 5 ? 16 : 32;
            assert_fails(layout->unpack(&back, c, "m.q", &spec, err), NYB_E_FORMAT, "want");
            assert_null(back.codes);
        }
        const nyb_layout_spec spec = {.rows = 32,
                                      .cols = 64,
                                      .bits = 4,
                                      .group_size = 32,
                                      .symmetric = false,
                                      .scale_dtype = NYB_F16};
        assert_fails(layout->unpack(&back, c, "m.k", &spec, err), NYB_E_FORMAT, "has no tensor");
        nyb_checkpoint_close(c);
        nyb_qweight_clear(&q);
        folder_clear(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ramps_give_the_documented_words),
        cmocka_unit_test(packing_is_a_bit_stream),
        cmocka_unit_test(packing_down_is_packing_transposed),
        cmocka_unit_test(gptq_layers_come_back),
        cmocka_unit_test(compressed_layers_come_back),
        cmocka_unit_test(awq_layers_come_back),
        cmocka_unit_test(layouts_are_complete),
        cmocka_unit_test(what_readers_cannot_take_is_refused),
        cmocka_unit_test(values_that_do_not_fit_are_refused),
        cmocka_unit_test(damaged_layers_are_refused),
        cmocka_unit_test(mislabelled_versions_are_refused),
        cmocka_unit_test(wrong_shapes_are_refused),
    };
    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
