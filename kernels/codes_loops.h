// codes_loops.h - the loops behind codes.h. Included once by each codes_<isa>.c, which is
// compiled with that instruction set's flags; everything here is static.
#ifndef NYB_KERNELS_CODES_LOOPS_H_
#define NYB_KERNELS_CODES_LOOPS_H_

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "kernels/codes.h"

enum { LANES = NYB_CODE_TURN, PARTS = NYB_CODE_ROWS / LANES, CHUNK = 32 };

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t lane_bits __attribute__((vector_size(4 * LANES)));
typedef int32_t lane_ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t byte_lanes __attribute__((vector_size(LANES)));

#define INLINE static inline __attribute__((always_inline))

// Vectors travel by pointer: passing them by value would depend on the instruction set.
INLINE void load(lanes *v, const float *x)
{
    memcpy(v, x, sizeof(*v));
}

INLINE void store(float *x, const lanes *v)
{
    memcpy(x, v, sizeof(*v));
}

// a where the mask is set, else b.
INLINE void choose(lanes *out, const lane_bits *mask, const lanes *a, const lanes *b)
{
    *out = (lanes) ((*mask & (lane_bits) *a) | (~*mask & (lane_bits) *b));
}

// The integer nearest to x in [low, high], ties to even; low for a NaN.
INLINE void snap(lanes *x, const lanes *low, const lanes *high)
{
    const float shift = 0x1.8p23f;
    const lane_bits above = (lane_bits) (*x > *low);
    choose(x, &above, x, low);
    const lane_bits below = (lane_bits) (*x < *high);
    choose(x, &below, x, high);
    *x = (*x + shift) - shift;
}

static void range(float *low, float *high, const float *x, size_t n)
{
    lanes least = {0}, most = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes v;
        load(&v, x + i);
        const lane_bits below = (lane_bits) (v < least), above = (lane_bits) (v > most);
        choose(&least, &below, &v, &least);
        choose(&most, &above, &v, &most);
    }
    float ends[2][LANES];
    store(ends[0], &least);
    store(ends[1], &most);
    *low = *high = 0.0f;
    for (size_t k = 0; k < LANES; k++) {
        *low = ends[0][k] < *low ? ends[0][k] : *low;
        *high = ends[1][k] > *high ? ends[1][k] : *high;
    }
    for (; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

INLINE void nearest_part(uint8_t *codes, const float *x, float scale, float zero, float top)
{
    // Codes and zero points are below 256, so that clamping before they are added changes nothing.
    const lanes least = (lanes){0} - 512.0f, most = (lanes){0} + 512.0f;
    const lanes bottom = {0}, end = bottom + top;
    lanes v;
    load(&v, x);
    v = v / scale;
    snap(&v, &least, &most);
    v = v + zero;
    snap(&v, &bottom, &end);
    const byte_lanes bytes =
        __builtin_convertvector(__builtin_convertvector(v, lane_ints), byte_lanes);
    memcpy(codes, &bytes, sizeof(bytes));
}

static void nearest(uint8_t *codes, const float *x, size_t n, float scale, float zero, float top)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        nearest_part(codes + i, x + i, scale, zero, top);
    if (i < n) {
        float some[LANES] = {0};
        uint8_t out[LANES];
        memcpy(some, x + i, (n - i) * sizeof(*x));
        nearest_part(out, some, scale, zero, top);
        memcpy(codes + i, out, n - i);
    }
}

// One column's new steps. Returns whether any row's changed; `moved` is by how much the weights did.
INLINE bool step_column(const nyb_descent *b, size_t j, lanes moved[PARTS])
{
    const float curve = 1.0f / b->h[j * b->cols + j];
    lane_bits any = {0};
    for (size_t part = 0; part < PARTS; part++) {
        const size_t at = j * NYB_CODE_ROWS + part * LANES;
        lanes step, slope, scale, low, high, total;
        load(&step, b->steps + at);
        load(&slope, b->slopes + at);
        load(&scale, b->grid.scale + part * LANES);
        load(&low, b->grid.low + part * LANES);
        load(&high, b->grid.high + part * LANES);
        load(&total, b->moved + at);
        lanes wanted = step - slope * curve / scale;
        snap(&wanted, &low, &high);
        moved[part] = scale * (wanted - step);
        any |= (lane_bits) moved[part] << 1; // a zero may have a sign
        total += moved[part];
        store(b->moved + at, &total);
        store(b->steps + at, &wanted);
    }
    uint32_t changed = 0;
    for (size_t i = 0; i < LANES; i++)
        changed |= any[i];
    return changed != 0;
}

// One part's rows over at most CHUNK columns.
INLINE void distance_part(lanes *sum, const float *values, const float *weights, size_t cols,
                          const nyb_code_grid *grid)
{
    lanes scale, low, high;
    load(&scale, grid->scale);
    load(&low, grid->low);
    load(&high, grid->high);
    const lanes inverse = 1.0f / scale;
    for (size_t j = 0; j < cols; j++) {
        lanes value;
        load(&value, values + j * NYB_CODE_ROWS);
        lanes step = value * inverse;
        snap(&step, &low, &high);
        const lanes off = scale * step - value;
        *sum += off * off * (weights ? weights[j] : 1.0f);
    }
}

static void distance(double *total, const float *values, const float *weights, size_t cols,
                     const nyb_code_grid *grid)
{
    for (size_t row = 0; row < NYB_CODE_ROWS; row++)
        total[row] = 0.0;
    for (size_t j = 0; j < cols; j += CHUNK) {
        const size_t count = cols - j < CHUNK ? cols - j : CHUNK;
        for (size_t row = 0; row < NYB_CODE_ROWS; row += LANES) {
            const nyb_code_grid part = {grid->scale + row, grid->low + row, grid->high + row};
            lanes sum = {0};
            float sums[LANES];
            distance_part(&sum, values + j * NYB_CODE_ROWS + row, weights ? weights + j : NULL,
                          count, &part);
            store(sums, &sum);
            for (size_t i = 0; i < LANES; i++)
                total[row + i] += (double) sums[i];
        }
    }
}

static void descend(const nyb_descent *b)
{
    for (size_t j = b->first; j < b->end; j++) {
        const float *const h = b->h + j * b->cols;
        lanes moved[PARTS];
        if (!(h[j] > 0.0f) || !step_column(b, j, moved))
            continue;
        for (size_t k = 0; k < b->cols; k++) {
            float *const slopes = b->slopes + k * NYB_CODE_ROWS;
            for (size_t part = 0; part < PARTS; part++) {
                lanes slope;
                load(&slope, slopes + part * LANES);
                slope += moved[part] * h[k];
                store(slopes + part * LANES, &slope);
            }
        }
    }
}

// The lanes turned round by so many.
#define TURNED(v, by)                                                                              \
    __builtin_shufflevector(v, v, by % 16, (1 + by) % 16, (2 + by) % 16, (3 + by) % 16,            \
                            (4 + by) % 16, (5 + by) % 16, (6 + by) % 16, (7 + by) % 16,            \
                            (8 + by) % 16, (9 + by) % 16, (10 + by) % 16, (11 + by) % 16,          \
                            (12 + by) % 16, (13 + by) % 16, (14 + by) % 16, (15 + by) % 16)

// Gives each lane the lesser of its own value and another's; of equal ones that of the first column.
INLINE void take_less(lanes *least, lane_ints *columns, const lanes *value, const lane_ints *column)
{
    const lane_bits takes = (lane_bits) (*value < *least) |
                            ((lane_bits) (*value == *least) & (lane_bits) (*column < *columns));
    choose(least, &takes, value, least);
    *columns = (lane_ints) ((takes & (lane_bits) *column) | (~takes & (lane_bits) *columns));
}

// The same for a later column, which has to be less.
INLINE void take_lesser(lanes *least, lane_ints *columns, const lanes *value,
                        const lane_ints *column)
{
#ifdef __AVX512F__ // compilers widen the masks of vectors
    const __mmask16 less = _mm512_cmp_ps_mask((__m512) *value, (__m512) *least, _CMP_LT_OQ);
    *least = (lanes) _mm512_mask_mov_ps((__m512) *least, less, (__m512) *value);
    *columns = (lane_ints) _mm512_mask_mov_epi32((__m512i) *columns, less, (__m512i) *column);
#else
    const lane_bits less = (lane_bits) (*value < *least);
    choose(least, &less, value, least);
    *columns = (lane_ints) ((less & (lane_bits) *column) | (~less & (lane_bits) *columns));
#endif
}

// The least of all lanes.
INLINE size_t least_lane(lanes *least, lane_ints *columns, float *value)
{
    lanes others = TURNED(*least, 8);
    lane_ints there = TURNED(*columns, 8);
    take_less(least, columns, &others, &there);
    others = TURNED(*least, 4);
    there = TURNED(*columns, 4);
    take_less(least, columns, &others, &there);
    others = TURNED(*least, 2);
    there = TURNED(*columns, 2);
    take_less(least, columns, &others, &there);
    others = TURNED(*least, 1);
    there = TURNED(*columns, 1);
    take_less(least, columns, &others, &there);
    *value = (*least)[0];
    return (size_t) (*columns)[0];
}

enum { RUNS = NYB_MOVE_COLS / LANES }; // with a least of their own, so that none waits for another

static size_t move(const nyb_moves *m, const float *h, float by, const float *ahead, float *change)
{
    const nyb_moves all = *m;
    const lane_bits sign = (lane_bits){0} + 0x80000000;
    const lane_ints first = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    lane_ints column = first, best[RUNS] = {first, first};
    lanes least[RUNS] = {(lanes){0} + 0x1p127f, (lanes){0} + 0x1p127f};
    for (size_t j = 0; j < all.cols; j += NYB_MOVE_COLS, column += NYB_MOVE_COLS) {
        for (size_t run = 0; run < RUNS; run++) {
            const size_t at = j + run * LANES;
            lanes slope, product, twice, cost;
            load(&slope, all.slopes + at);
            load(&product, h + at);
            load(&twice, all.twice + at);
            load(&cost, all.cost + at);
            __builtin_prefetch(ahead + at);
            slope += product * by;
            store(all.slopes + at, &slope);
            slope *= twice;
            slope = (lanes) ((lane_bits) slope & ((lane_bits) cost | ~sign));
            cost = (lanes) ((lane_bits) cost & ~sign) - slope;
            take_lesser(&least[run], &best[run], &cost, &column);
        }
    }
    for (size_t run = 1; run < RUNS; run++) {
        best[run] += (int32_t) (run * LANES);
        take_less(&least[0], &best[0], &least[run], &best[run]);
    }
    return least_lane(&least[0], &best[0], change);
}

INLINE void add_some(float *sums, size_t cols, const float *const *rows, const float *by,
                     size_t count)
{
    for (size_t j = 0; j < cols; j += LANES) {
        lanes sum, part;
        load(&sum, sums + j);
        for (size_t i = 0; i < count; i++) {
            load(&part, rows[i] + j);
            sum += part * by[i];
        }
        store(sums + j, &sum);
    }
}

static void add_rows(float *sums, size_t cols, const float *const *rows, const float *by,
                     size_t count)
{
    enum { AT_ONCE = 4 }; // rows on one way through the sums
    size_t i = 0;
    for (; i + AT_ONCE <= count; i += AT_ONCE)
        add_some(sums, cols, rows + i, by + i, AT_ONCE);
    for (; i < count; i++)
        add_some(sums, cols, rows + i, by + i, 1);
}

// Exchanges the squares of `by` lanes that lie off the diagonal, in all squares of twice as many.
#define OWN(k, by)   ((k) & (by) ? 16 + (k) - (by) : (k))
#define OTHER(k, by) ((k) & (by) ? 16 + (k) : (k) + (by))
#define EACH(index, by)                                                                            \
    index(0, by), index(1, by), index(2, by), index(3, by), index(4, by), index(5, by),            \
        index(6, by), index(7, by), index(8, by), index(9, by), index(10, by), index(11, by),      \
        index(12, by), index(13, by), index(14, by), index(15, by)
#define EXCHANGE(lines, by)                                                                        \
    for (size_t i = 0; i < LANES; i++) {                                                           \
        if (!(i & (by))) {                                                                         \
            const lanes own = lines[i], other = lines[i + (by)];                                   \
            lines[i] = __builtin_shufflevector(own, other, EACH(OWN, by));                         \
            lines[i + (by)] = __builtin_shufflevector(own, other, EACH(OTHER, by));                \
        }                                                                                          \
    }

static void turn(float *to, size_t to_stride, const float *from, size_t from_stride)
{
    lanes lines[LANES];
    for (size_t i = 0; i < LANES; i++)
        load(&lines[i], from + i * from_stride);
    EXCHANGE(lines, 8)
    EXCHANGE(lines, 4)
    EXCHANGE(lines, 2)
    EXCHANGE(lines, 1)
    for (size_t i = 0; i < LANES; i++)
        store(to + i * to_stride, &lines[i]);
}

#define CODE_OPS                                                                                   \
    {                                                                                              \
        .range = range, .nearest = nearest, .distance = distance, .descend = descend,              \
        .move = move, .add_rows = add_rows, .turn = turn                                           \
    }

#endif // NYB_KERNELS_CODES_LOOPS_H_
