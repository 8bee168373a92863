// lowbit_loops.h - the loops behind lowbit.h. Included once by each lowbit_<isa>.c, which is
// compiled with that instruction set's flags and may bring its own inner step:
//
//     LOWBIT_LANES   rows that are worked on together, which share a register: divides a tile's
//     LOWBIT_QUAD    adds the products of four places of so many rows
//
// Everything here is static. Vectors travel by pointer: passing them by value would depend on
// the instruction set.
#ifndef NYB_KERNELS_LOWBIT_LOOPS_H_
#define NYB_KERNELS_LOWBIT_LOOPS_H_

#include <assert.h>
#include <string.h>

#include "core/dtype.h"
#include "kernels/lowbit_levels.h"

#ifndef LOWBIT_LANES
#define LOWBIT_LANES NYB_LOWBIT_ROWS
#endif

enum { TILE = NYB_LOWBIT_ROWS, LANES = LOWBIT_LANES, FINE = NYB_LOWBIT_FINE, RUN = NYB_LOWBIT_RUN };

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t lane_bits __attribute__((vector_size(4 * LANES)));
typedef int32_t lane_ints __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))

// ---- Four places of LANES rows ------------------------------------------------------------

#ifndef LOWBIT_QUAD
#define LOWBIT_QUAD quad
// The codes of place b are bits [8 b + low, 8 b + low + bits) of `from`; their products with digit d
// of the input, values[4 d + b], go to sums[d].
INLINE void quad(lane_ints sums[FINE], const lane_bits *from, unsigned low, unsigned bits,
                 unsigned digits, const int8_t *values)
{
    const uint32_t mask = (1u << bits) - 1;
    for (unsigned b = 0; b < 4; b++) {
        const lane_ints codes = (lane_ints) (*from >> (8 * b + low) & mask);
        for (unsigned d = 0; d < digits; d++)
            sums[d] += codes * (int32_t) values[4 * d + b];
    }
}
#endif

// ---- A unit -------------------------------------------------------------------------------

INLINE void load_words(lane_bits *to, const uint32_t *words)
{
    memcpy(to, words, sizeof(*to));
}

// The codes of the places 24 to 31 of a unit of 3 bits, at bit 0 of each byte.
INLINE void rest_of_3(lane_bits rest[2], const lane_bits w[3])
{
    rest[0] = (w[0] >> 6 & 0x03030303) | (w[2] >> 4 & 0x04040404);
    rest[1] = (w[1] >> 6 & 0x03030303) | (w[2] >> 5 & 0x04040404);
}

// Two sets of sums take turns, so that an addition need not wait for the one before it.
INLINE void unit(lane_ints sums[2][FINE], const uint32_t *words, unsigned bits, unsigned digits,
                 const int8_t *values)
{
    lane_bits w[3], rest[2];
    load_words(&w[0], words);
    if (bits != 3) {
        for (unsigned k = 0; k < 8 / bits; k++)
            LOWBIT_QUAD(sums[k % 2], &w[0], k * bits, bits, digits, values + 4 * k * digits);
        return;
    }
    load_words(&w[1], words + TILE);
    load_words(&w[2], words + 2 * TILE);
    for (unsigned k = 0; k < 6; k++)
        LOWBIT_QUAD(sums[k % 2], &w[k / 2], k % 2 * 3, 3, digits, values + 4 * k * digits);
    rest_of_3(rest, w);
    LOWBIT_QUAD(sums[0], &rest[0], 0, 3, digits, values + 24 * digits);
    LOWBIT_QUAD(sums[1], &rest[1], 0, 3, digits, values + 28 * digits);
}

// ---- A group of a tile --------------------------------------------------------------------

// Where LANES rows of a tile's group lie.
typedef struct span {
    const uint32_t *words;
    size_t first, end; // places
} span;

INLINE span span_of(const nyb_lowbit *m, size_t row, size_t group, unsigned bits)
{
    const size_t places = nyb_lowbit_unit(bits), step = nyb_lowbit_unit_words(bits) * TILE;
    const size_t units = row / TILE * (m->places / places) + m->first[group] / places;
    return (span){.words = m->words + units * step + row % TILE,
                  .first = m->first[group],
                  .end = m->first[group + 1]};
}

// Where their scales and zero points are.
INLINE size_t group_place(const nyb_lowbit *m, size_t row, size_t group)
{
    return (row / TILE * m->groups + group) * TILE + row % TILE;
}

INLINE void load_scales(lanes *to, const nyb_lowbit *m, size_t row, size_t group)
{
    const size_t at = group_place(m, row, group);
    const unsigned char *const from = m->scales;
    if (m->scale_dtype == NYB_F32) {
        memcpy(to, from + at * sizeof(float), sizeof(*to));
        return;
    }
    typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
    halves h;
    memcpy(&h, from + at * sizeof(uint16_t), sizeof(h));
    const lane_bits wide = __builtin_convertvector(h, lane_bits);
    if (m->scale_dtype == NYB_BF16)
        *to = (lanes) (wide << 16);
    else // finite and above 0: the exponent moves from a bias of 15 to one of 127
        *to = (lanes) (wide << 13) * 0x1p112f;
}

INLINE void load_zeros(lane_ints *to, const nyb_lowbit *m, size_t row, size_t group, unsigned bits)
{
    typedef uint8_t bytes __attribute__((vector_size(LANES)));
    bytes b;
    if (m->zeros) {
        memcpy(&b, m->zeros + group_place(m, row, group), sizeof(b));
        *to = __builtin_convertvector(b, lane_ints);
    } else {
        *to = (lane_ints){0} + (int32_t) (1u << (bits - 1));
    }
}

// The sum over a run of code less zero point times value: each digit's sum is below 2^24 and so
// is exact in f32.
INLINE void run(lanes *out, const uint32_t *words, size_t places, unsigned bits, unsigned digits,
                const int8_t *values, const lane_ints *zero, const int32_t *value_sums)
{
    const size_t step = nyb_lowbit_unit_words(bits) * TILE, unit_places = nyb_lowbit_unit(bits);
    lane_ints sums[2][FINE] = {{{0}}};
    for (size_t p = 0; p < places; p += unit_places, words += step)
        unit(sums, words, bits, digits, values + p * digits);
    lanes total = {0};
    for (unsigned d = digits; d-- > 0;) {
        sums[0][d] += sums[1][d] - *zero * value_sums[d];
        total = total * 256.0f + __builtin_convertvector(sums[0][d], lanes);
    }
    *out = total;
}

// Adds a group's part; r is its first run.
INLINE void add_group(lanes *total, const nyb_lowbit *m, size_t row, size_t group, size_t r,
                      unsigned bits, unsigned digits, const nyb_lowbit_input *input)
{
    const span s = span_of(m, row, group, bits);
    const size_t words = nyb_lowbit_unit_words(bits) * TILE * (RUN / nyb_lowbit_unit(bits));
    const uint32_t *from = s.words;
    lanes scale, sum;
    lane_ints zero;
    load_scales(&scale, m, row, group);
    load_zeros(&zero, m, row, group, bits);
    for (size_t p = s.first; p < s.end; p += RUN, r++, from += words) {
        run(&sum, from, s.end - p < RUN ? s.end - p : RUN, bits, digits, input->values + p * digits,
            &zero, input->sums + r * digits);
        *total += scale * input->steps[r] * sum;
    }
}

// ---- Rows ---------------------------------------------------------------------------------

INLINE void store_rows(float *y, const lanes *v, size_t rows)
{
    float all[LANES];
    memcpy(all, v, sizeof(all));
    memcpy(y, all, (rows < LANES ? rows : LANES) * sizeof(float));
}

INLINE void multiply_bits(float *y, const nyb_lowbit *m, size_t row0, size_t rows,
                          const nyb_lowbit_input *input, unsigned bits, unsigned digits)
{
    for (size_t i = 0; i < rows; i += LANES) {
        lanes total = {0};
        size_t r = 0;
        for (size_t g = 0; g < m->groups; g++) {
            add_group(&total, m, row0 + i, g, r, bits, digits, input);
            r += (m->first[g + 1] - m->first[g] + RUN - 1) / RUN;
        }
        store_rows(y + i, &total, rows - i);
    }
}

INLINE void multiply_digits(float *y, const nyb_lowbit *m, size_t row0, size_t rows,
                            const nyb_lowbit_input *input, unsigned bits)
{
    if (input->digits == FINE)
        multiply_bits(y, m, row0, rows, input, bits, FINE);
    else
        multiply_bits(y, m, row0, rows, input, bits, NYB_LOWBIT_COARSE);
}

static void multiply(float *y, const nyb_lowbit *m, size_t row0, size_t rows,
                     const nyb_lowbit_input *input)
{
    assert(row0 % TILE == 0 && row0 + rows <= m->rows);
    switch (m->bits) {
    case 2:
        multiply_digits(y, m, row0, rows, input, 2);
        break;
    case 3:
        multiply_digits(y, m, row0, rows, input, 3);
        break;
    case 4:
        multiply_digits(y, m, row0, rows, input, 4);
        break;
    default:
        multiply_digits(y, m, row0, rows, input, 8);
    }
}

// ---- Rows, for inputs of bytes ------------------------------------------------------------

INLINE void add_whole_group(lanes *total, const nyb_lowbit *m, size_t row, size_t group,
                            unsigned bits, const int8_t *values, int32_t value_sum)
{
    const span s = span_of(m, row, group, bits);
    const size_t step = nyb_lowbit_unit_words(bits) * TILE, places = nyb_lowbit_unit(bits);
    const uint32_t *words = s.words;
    lane_ints sums[2][FINE] = {{{0}}};
    lanes scale;
    lane_ints zero;
    load_scales(&scale, m, row, group);
    load_zeros(&zero, m, row, group, bits);
    for (size_t p = s.first; p < s.end; p += places, words += step)
        unit(sums, words, bits, 1, values + p);
    const lane_ints whole = sums[0][0] + sums[1][0] - zero * value_sum;
    *total += scale * __builtin_convertvector(whole, lanes);
}

INLINE void multiply_int8_bits(nyb_mat y, const nyb_lowbit *m, size_t row0,
                               const nyb_lowbit_int8 *input, unsigned bits)
{
    for (size_t i = 0; i < y.cols; i += LANES) {
        for (size_t t = 0; t < input->count; t++) {
            lanes total = {0};
            for (size_t g = 0; g < m->groups; g++)
                add_whole_group(&total, m, row0 + i, g, bits, input->values + t * m->places,
                                input->sums[t * m->groups + g]);
            total *= input->steps[t];
            store_rows(nyb_row(y, t) + i, &total, y.cols - i);
        }
    }
}

static void multiply_int8(nyb_mat y, const nyb_lowbit *m, size_t row0, const nyb_lowbit_int8 *input)
{
    assert(row0 % TILE == 0 && row0 + y.cols <= m->rows && m->cols <= NYB_LOWBIT_INT8_COLS);
    switch (m->bits) {
    case 2:
        multiply_int8_bits(y, m, row0, input, 2);
        break;
    case 3:
        multiply_int8_bits(y, m, row0, input, 3);
        break;
    case 4:
        multiply_int8_bits(y, m, row0, input, 4);
        break;
    default:
        multiply_int8_bits(y, m, row0, input, 8);
    }
}

// ---- The input ----------------------------------------------------------------------------

// The values of a run in the order of its places.
INLINE void gather(float *to, const nyb_lowbit *m, const float *x, size_t first, size_t places)
{
    if (m->order) {
        for (size_t p = 0; p < places; p++) {
            const uint32_t column = m->order[first + p];
            to[p] = column == UINT32_MAX ? 0.0f : x[column];
        }
        return;
    }
    const size_t whole = first + places <= m->cols ? places : m->cols - first;
    memcpy(to, x + first, whole * sizeof(*x));
    memset(to + whole, 0, (places - whole) * sizeof(*x));
}

// The largest magnitude; NaN when one is.
INLINE float largest(const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof(bits));
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return nyb_f32_of_bits(most);
}

INLINE int32_t sum_of(const lane_ints *v)
{
    int32_t all[LANES], total = 0;
    memcpy(all, v, sizeof(all));
    for (size_t i = 0; i < LANES; i++)
        total += all[i];
    return total;
}

// Rounds a run, filled up to whole lanes with zeros, to multiples of its step, which is returned,
// and takes the multiples apart into digits.
INLINE float round_run(int8_t *to, int32_t *sums, const float *x, size_t places, unsigned digits)
{
    typedef int8_t bytes __attribute__((vector_size(LANES)));
    const float top = digits == FINE ? 0x1p22f - 1.0f : 127.0f;
    const float most = largest(x, places), scale = most >= 1e-30f ? top / most : 0.0f;
    lane_ints totals[FINE] = {{0}};
    for (size_t p = 0; p < places; p += LANES) {
        const size_t quads = places - p < LANES ? (places - p) / 4 : LANES / 4;
        lanes v;
        memcpy(&v, x + p, sizeof(v));
        // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
        lane_ints left = (lane_ints) (v * scale + 0x1.8p23f) - 0x4b400000;
        for (unsigned d = 0; d < digits; d++) {
            const lane_ints digit = (lane_ints) ((lane_bits) left << 24) >> 24;
            const bytes narrow = __builtin_convertvector(digit, bytes);
            for (size_t q = 0; q < quads; q++)
                memcpy(to + (p + 4 * q) * digits + 4 * d, (const int8_t *) &narrow + 4 * q, 4);
            totals[d] += digit;
            left = (left - digit) >> 8;
        }
    }
    for (unsigned d = 0; d < digits; d++)
        sums[d] = sum_of(&totals[d]);
    return most >= 1e-30f || most != most ? most / top : 0.0f;
}

static nyb_lowbit_input input(const nyb_lowbit *m, unsigned digits, void *memory, const float *x)
{
    float *const steps = memory;
    int32_t *const sums = (int32_t *) (void *) (steps + m->runs);
    int8_t *const values = (int8_t *) (sums + m->runs * digits);
    float run_values[RUN];
    size_t r = 0;
    for (size_t g = 0; g < m->groups; g++) {
        for (size_t p = m->first[g]; p < m->first[g + 1]; p += RUN, r++) {
            const size_t left = m->first[g + 1] - p, places = left < RUN ? left : RUN;
            gather(run_values, m, x, p, places);
            memset(run_values + places, 0, (RUN - places) * sizeof(*run_values));
            if (digits == FINE)
                steps[r] =
                    round_run(values + p * digits, sums + r * digits, run_values, places, FINE);
            else
                steps[r] = round_run(values + p, sums + r, run_values, places, NYB_LOWBIT_COARSE);
        }
    }
    return (nyb_lowbit_input){.digits = digits, .steps = steps, .sums = sums, .values = values};
}

// ---- The weights themselves ---------------------------------------------------------------

// Where dequantised columns go.
typedef struct target {
    float *to;
    size_t stride, rows; // of at most LANES rows
} target;

INLINE void put_quad(const target *t, const nyb_lowbit *m, const lane_bits *from, unsigned low,
                     size_t place, const lane_ints *zero, const lanes *scale)
{
    const uint32_t mask = (1u << m->bits) - 1;
    for (unsigned b = 0; b < 4; b++) {
        const size_t column = m->order ? m->order[place + b] : place + b;
        if (column >= m->cols)
            continue;
        const lane_ints codes = (lane_ints) (*from >> (8 * b + low) & mask);
        const lanes w = *scale * __builtin_convertvector(codes - *zero, lanes);
        if (t->rows == LANES)
            memcpy(t->to + column * t->stride, &w, sizeof(w));
        else
            store_rows(t->to + column * t->stride, &w, t->rows);
    }
}

INLINE void put_unit(const target *t, const nyb_lowbit *m, const uint32_t *words, size_t place,
                     const lane_ints *zero, const lanes *scale)
{
    lane_bits w[3], rest[2];
    load_words(&w[0], words);
    if (m->bits != 3) {
        for (unsigned k = 0; k < 8 / m->bits; k++)
            put_quad(t, m, &w[0], k * m->bits, place + 4 * k, zero, scale);
        return;
    }
    load_words(&w[1], words + TILE);
    load_words(&w[2], words + 2 * TILE);
    for (unsigned k = 0; k < 6; k++)
        put_quad(t, m, &w[k / 2], k % 2 * 3, place + 4 * k, zero, scale);
    rest_of_3(rest, w);
    put_quad(t, m, &rest[0], 0, place + 24, zero, scale);
    put_quad(t, m, &rest[1], 0, place + 28, zero, scale);
}

static void dequantize_rows(const target *t, const nyb_lowbit *m, size_t row)
{
    const size_t places = nyb_lowbit_unit(m->bits);
    const size_t step = nyb_lowbit_unit_words(m->bits) * TILE;
    for (size_t g = 0; g < m->groups; g++) {
        const span s = span_of(m, row, g, m->bits);
        const uint32_t *words = s.words;
        lanes scale;
        lane_ints zero;
        load_scales(&scale, m, row, g);
        load_zeros(&zero, m, row, g, m->bits);
        for (size_t p = s.first; p < s.end; p += places, words += step)
            put_unit(t, m, words, p, &zero, &scale);
    }
}

static void dequantize(float *to, size_t stride, const nyb_lowbit *m, size_t row0, size_t rows)
{
    assert(row0 % TILE == 0 && row0 + rows <= m->rows);
    for (size_t i = 0; i < rows; i += LANES) {
        const target t = {
            .to = to + i, .stride = stride, .rows = rows - i < LANES ? rows - i : LANES};
        dequantize_rows(&t, m, row0 + i);
    }
}

#define LOWBIT_OPS                                                                                 \
    {                                                                                              \
        .input = input, .multiply = multiply, .multiply_int8 = multiply_int8,                      \
        .dequantize = dequantize                                                                   \
    }

#endif // NYB_KERNELS_LOWBIT_LOOPS_H_
