#include "kernels/lowbit.h"

#include <assert.h>
#include <string.h>

#include "core/cpu.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "kernels/lowbit_levels.h"

enum { ROWS = NYB_LOWBIT_ROWS };

// ---- Sizes --------------------------------------------------------------------------------

// Offsets of the parts in one block of memory; bytes is SIZE_MAX when they cannot be counted.
typedef struct parts {
    size_t words, scales, zeros, first, order, bytes;
} parts;

static size_t reserve(parts *p, size_t count, size_t size)
{
    const size_t at = p->bytes;
    size_t bytes = 0;
    if (p->bytes == SIZE_MAX || !nyb_mul_size(count, size, &bytes) ||
        !nyb_add_size(bytes, NYB_ALIGN - 1, &bytes) ||
        !nyb_add_size(p->bytes, bytes - bytes % NYB_ALIGN, &p->bytes))
        p->bytes = SIZE_MAX;
    return at;
}

static parts measure(const nyb_lowbit *m)
{
    const size_t tiles = (m->rows + ROWS - 1) / ROWS;
    const size_t units = m->places / nyb_lowbit_unit(m->bits);
    parts p = {0};
    size_t words = 0, groups = 0;
    if (!nyb_mul_size(tiles, units * nyb_lowbit_unit_words(m->bits) * ROWS, &words) ||
        !nyb_mul_size(tiles, m->groups * ROWS, &groups))
        return (parts){.bytes = SIZE_MAX};
    p.words = reserve(&p, words, sizeof(uint32_t));
    p.scales = reserve(&p, groups, nyb_dtype_bytes(m->scale_dtype));
    p.zeros = reserve(&p, groups, m->zeros ? 1 : 0);
    p.first = reserve(&p, m->groups + 1, sizeof(uint32_t));
    p.order = reserve(&p, m->places, m->order ? sizeof(uint32_t) : 0);
    return p;
}

size_t nyb_lowbit_bytes(size_t rows, size_t cols, unsigned bits, size_t group_size)
{
    static const uint8_t some_zero;
    static const uint32_t some_order;
    const size_t unit = nyb_lowbit_unit(bits);
    const size_t size = group_size && group_size < cols ? group_size : cols;
    const size_t groups = (cols + size - 1) / size;
    if (cols > UINT32_MAX)
        return SIZE_MAX;
    // Each group may end with a unit that one column of it has begun.
    const nyb_lowbit m = {
        .rows = rows,
        .cols = cols,
        .groups = groups,
        .places = (cols / unit + groups + 1) * unit,
        .bits = bits,
        .scale_dtype = NYB_F32,
        .zeros = &some_zero,
        .order = &some_order,
    };
    return measure(&m).bytes;
}

// ---- Packing ------------------------------------------------------------------------------

static size_t up_to_units(size_t count, size_t unit)
{
    return (count + unit - 1) / unit * unit;
}

// Fills in where the groups begin; counts is [groups]. Returns the places of all groups: when they
// are more than 2^32 - 1, `first` is of no use.
static size_t place_groups(uint32_t *first, const size_t *counts, size_t groups, size_t unit)
{
    size_t at = 0;
    for (size_t g = 0; g < groups; g++) {
        first[g] = (uint32_t) at;
        at += up_to_units(counts[g], unit);
    }
    first[groups] = (uint32_t) at;
    return at;
}

// Which column each place takes. `next` is [groups] scratch.
static void place_columns(uint32_t *order, size_t *next, const uint32_t *first,
                          const nyb_qweight *q)
{
    memset(order, 0xff, first[q->groups] * sizeof(*order));
    for (size_t g = 0; g < q->groups; g++)
        next[g] = first[g];
    for (size_t j = 0; j < q->cols; j++)
        order[next[q->group_of[j]]++] = (uint32_t) j;
}

static uint32_t four(const uint8_t *codes)
{
    uint32_t word; // bytes in their order: the project is little-endian throughout
    memcpy(&word, codes, sizeof(word));
    return word;
}

// Writes a unit of one row, whose words are ROWS apart.
static void pack_unit(uint32_t *to, const uint8_t *codes, unsigned bits)
{
    const uint32_t low = 0x03030303, one = 0x01010101;
    switch (bits) {
    case 2:
        to[0] = four(codes) | four(codes + 4) << 2 | four(codes + 8) << 4 | four(codes + 12) << 6;
        break;
    case 3: {
        const uint32_t a = four(codes + 24), b = four(codes + 28);
        to[0] = four(codes) | four(codes + 4) << 3 | (a & low) << 6;
        to[ROWS] = four(codes + 8) | four(codes + 12) << 3 | (b & low) << 6;
        to[2 * ROWS] =
            four(codes + 16) | four(codes + 20) << 3 | (a >> 2 & one) << 6 | (b >> 2 & one) << 7;
        break;
    }
    case 4:
        to[0] = four(codes) | four(codes + 4) << 4;
        break;
    default:
        to[0] = four(codes);
    }
}

static void pack_row(uint32_t *to, const uint8_t *codes, size_t places, unsigned bits)
{
    const size_t unit = nyb_lowbit_unit(bits), step = nyb_lowbit_unit_words(bits) * ROWS;
    for (size_t at = 0; at < places; at += unit, to += step)
        pack_unit(to, codes + at, bits);
}

// The codes of one row in the order of the places; those without a column get 0.
static void arrange(uint8_t *to, const uint8_t *codes, const nyb_lowbit *m)
{
    if (!m->order) {
        memcpy(to, codes, m->cols);
        return;
    }
    for (size_t p = 0; p < m->places; p++)
        to[p] = m->order[p] == UINT32_MAX ? 0 : codes[m->order[p]];
}

static void pack_all(const nyb_lowbit *m, const nyb_qweight *q, uint8_t *row)
{
    const size_t tile_words =
        m->places / nyb_lowbit_unit(m->bits) * nyb_lowbit_unit_words(m->bits) * ROWS;
    const size_t size = nyb_dtype_bytes(m->scale_dtype);
    unsigned char *const memory = m->memory;
    const parts p = measure(m);
    for (size_t i = 0; i < m->rows; i++) {
        const size_t tile = i / ROWS, lane = i % ROWS;
        arrange(row, q->codes + i * q->cols, m);
        pack_row((uint32_t *) (void *) (memory + p.words) + tile * tile_words + lane, row,
                 m->places, m->bits);
        for (size_t g = 0; g < m->groups; g++) {
            const size_t at = (tile * m->groups + g) * ROWS + lane;
            nyb_narrow(memory + p.scales + at * size, m->scale_dtype, &q->scales[i * q->groups + g],
                       1);
            if (m->zeros)
                memory[p.zeros + at] = q->zeros[i * q->groups + g];
        }
    }
}

// Whether every zero point is the middle code.
static bool is_centred(const nyb_qweight *q)
{
    const uint8_t middle = (uint8_t) (1u << (q->bits - 1));
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        if (q->zeros[k] != middle)
            return false;
    }
    return true;
}

// Whether places and columns are the same.
static bool is_plain(const nyb_qweight *q, const uint32_t *first)
{
    for (size_t j = 0; j < q->cols; j++) {
        if (j < first[q->group_of[j]] || j >= first[q->group_of[j] + 1])
            return false;
    }
    return first[q->groups] == up_to_units(q->cols, nyb_lowbit_unit(q->bits));
}

// What is known without the place of anything. `first` and `counts` are scratch of q->groups + 1.
static nyb_lowbit describe(const nyb_qweight *q, uint32_t *first, size_t *counts)
{
    static const uint8_t some_zero;
    static const uint32_t some_order;
    const size_t unit = nyb_lowbit_unit(q->bits);
    for (size_t j = 0; j < q->cols; j++)
        counts[q->group_of[j]]++;
    const size_t places = place_groups(first, counts, q->groups, unit);
    return (nyb_lowbit){
        .rows = q->rows,
        .cols = q->cols,
        .groups = q->groups,
        .places = places,
        .bits = q->bits,
        .scale_dtype = q->scale_dtype,
        .zeros = is_centred(q) ? NULL : &some_zero,
        .order = places <= UINT32_MAX && is_plain(q, first) ? NULL : &some_order,
    };
}

static void fill(nyb_lowbit *m, const nyb_qweight *q, const uint32_t *first, size_t *next,
                 uint8_t *row)
{
    const parts p = measure(m);
    unsigned char *const memory = m->memory;
    m->bytes = p.bytes;
    for (size_t g = 0; g < q->groups; g++)
        m->runs += (first[g + 1] - first[g] + NYB_LOWBIT_RUN - 1) / NYB_LOWBIT_RUN;
    m->words = (const uint32_t *) (const void *) (memory + p.words);
    m->scales = memory + p.scales;
    m->zeros = m->zeros ? memory + p.zeros : NULL;
    m->first = memcpy(memory + p.first, first, (q->groups + 1) * sizeof(*first));
    if (m->order) {
        uint32_t *const order = (uint32_t *) (void *) (memory + p.order);
        place_columns(order, next, first, q);
        m->order = order;
    }
    pack_all(m, q, row);
}

nyb_status nyb_lowbit_init(nyb_lowbit *out, const nyb_qweight *q, nyb_err *err)
{
    *out = (nyb_lowbit){0};
    if (q->block != NYB_F32)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "codes on the grid of %s are not multiplied as they are",
                        nyb_dtype_name(q->block));
    uint32_t *const first = nyb_alloc(q->groups + 1, sizeof(*first));
    size_t *const counts = nyb_alloc(q->groups + 1, sizeof(*counts));
    const nyb_lowbit m = first && counts ? describe(q, first, counts) : (nyb_lowbit){.bits = 4};
    const size_t bytes = first && counts && m.places <= UINT32_MAX ? measure(&m).bytes : SIZE_MAX;
    void *const memory = bytes < SIZE_MAX ? nyb_alloc(bytes, 1) : NULL;
    uint8_t *const row = memory ? nyb_alloc(m.places, 1) : NULL;
    if (row) {
        *out = m;
        out->memory = memory;
        fill(out, q, first, counts, row);
    } else {
        nyb_free(memory);
    }
    nyb_free(first);
    nyb_free(counts);
    nyb_free(row);
    return out->memory ? NYB_OK : nyb_no_memory(err, "packed codes", q->rows, q->cols);
}

void nyb_lowbit_clear(nyb_lowbit *m)
{
    nyb_free(m->memory);
    *m = (nyb_lowbit){0};
}

size_t nyb_lowbit_input_bytes(const nyb_lowbit *m, unsigned digits)
{
    return m->places * digits + m->runs * (sizeof(float) + digits * sizeof(int32_t));
}

size_t nyb_lowbit_int8_bytes(const nyb_lowbit *m, size_t count)
{
    return count * (m->groups * sizeof(int32_t) + m->places);
}

nyb_lowbit_int8 nyb_lowbit_int8_input(const nyb_lowbit *m, size_t count, const int8_t *x,
                                      const float *steps, void *memory)
{
    int32_t *const sums = memory;
    int8_t *const values = (int8_t *) (sums + count * m->groups);
    for (size_t t = 0; t < count; t++) {
        const int8_t *const from = x + t * m->cols;
        int8_t *const to = values + t * m->places;
        memset(to, 0, m->places);
        if (!m->order)
            memcpy(to, from, m->cols);
        for (size_t p = 0; m->order && p < m->places; p++)
            to[p] = m->order[p] == UINT32_MAX ? 0 : from[m->order[p]];
        for (size_t g = 0; g < m->groups; g++) {
            int32_t sum = 0;
            for (size_t p = m->first[g]; p < m->first[g + 1]; p++)
                sum += to[p];
            sums[t * m->groups + g] = sum;
        }
    }
    return (nyb_lowbit_int8){.count = count, .steps = steps, .sums = sums, .values = values};
}

// ---- Dispatch -----------------------------------------------------------------------------

const nyb_lowbit_ops *nyb_lowbit_ops_for(unsigned cpu)
{
#ifdef NYB_KERNELS_X86
    if (cpu & NYB_CPU_AVX512VNNI)
        return &nyb_lowbit_ops_avx512vnni;
    if (cpu & NYB_CPU_AVX512)
        return &nyb_lowbit_ops_avx512;
    if (cpu & NYB_CPU_AVX2)
        return &nyb_lowbit_ops_avx2;
#else
    (void) cpu;
#endif
    return &nyb_lowbit_ops_portable;
}

const nyb_lowbit_ops *nyb_lowbit_ops_get(void)
{
    return nyb_lowbit_ops_for(nyb_cpu());
}
