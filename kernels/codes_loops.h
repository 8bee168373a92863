// codes_loops.h - the loops behind codes.h. Included once by each codes_<isa>.c, which is
// compiled with that instruction set's flags; everything here is static.
#ifndef NYB_KERNELS_CODES_LOOPS_H_
#define NYB_KERNELS_CODES_LOOPS_H_

#include <float.h>
#include <math.h>
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
typedef double wide_lanes __attribute__((vector_size(8 * LANES)));
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

// a where it is less than b, else b; the same for more. Compilers make several instructions of it
// where there is one.
INLINE void lesser(lanes *out, const lanes *a, const lanes *b)
{
#ifdef __AVX512F__
    *out = (lanes) _mm512_min_ps((__m512) *a, (__m512) *b);
#else
    const lane_bits less = (lane_bits) (*a < *b);
    choose(out, &less, a, b);
#endif
}

INLINE void greater(lanes *out, const lanes *a, const lanes *b)
{
#ifdef __AVX512F__
    *out = (lanes) _mm512_max_ps((__m512) *a, (__m512) *b);
#else
    const lane_bits more = (lane_bits) (*a > *b);
    choose(out, &more, a, b);
#endif
}

// The lanes turned round by so many.
#define TURNED(v, by)                                                                              \
    __builtin_shufflevector(v, v, by % 16, (1 + by) % 16, (2 + by) % 16, (3 + by) % 16,            \
                            (4 + by) % 16, (5 + by) % 16, (6 + by) % 16, (7 + by) % 16,            \
                            (8 + by) % 16, (9 + by) % 16, (10 + by) % 16, (11 + by) % 16,          \
                            (12 + by) % 16, (13 + by) % 16, (14 + by) % 16, (15 + by) % 16)

// The integer nearest to x in [low, high], ties to even; low for a NaN.
INLINE void snap(lanes *x, const lanes *low, const lanes *high)
{
    const float shift = 0x1.8p23f;
    greater(x, x, low);
    lesser(x, x, high);
    *x = (*x + shift) - shift;
}

// The least or the most of all lanes, in each of them.
#define ACROSS(v, which)                                                                           \
    do {                                                                                           \
        lanes turned = TURNED(*(v), 8);                                                            \
        which(v, v, &turned);                                                                      \
        turned = TURNED(*(v), 4);                                                                  \
        which(v, v, &turned);                                                                      \
        turned = TURNED(*(v), 2);                                                                  \
        which(v, v, &turned);                                                                      \
        turned = TURNED(*(v), 1);                                                                  \
        which(v, v, &turned);                                                                      \
    } while (0)

INLINE void range(float *low, float *high, const float *x, size_t n)
{
    lanes least = {0}, most = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes v;
        load(&v, x + i);
        lesser(&least, &v, &least);
        greater(&most, &v, &most);
    }
    ACROSS(&least, lesser);
    ACROSS(&most, greater);
    *low = least[0];
    *high = most[0];
    for (; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

static void ranges(float *low, float *high, const float *x, size_t n, size_t size)
{
    for (size_t i = 0; i < n; i += size)
        range(low++, high++, x + i, n - i < size ? n - i : size);
}

// What a file holds of a scale above 0, see nyb_grid_storable().
INLINE void make_storable(lanes *scale, nyb_dtype dtype)
{
    const lane_bits bits = (lane_bits) *scale;
    lanes least = (lanes){0} + FLT_MIN;
    if (dtype == NYB_BF16)
        *scale = (lanes) ((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000);
    if (dtype == NYB_F16) {
        const lanes endless = (lanes){0} + INFINITY, small = (*scale + 0.75f) - 0.75f;
        const lane_bits is_small = (lane_bits) (*scale < 0x1p-14f);
        lanes rounded = (lanes) ((bits + 0xfff + ((bits >> 13) & 1)) & 0xffffe000);
        const lane_bits is_large = (lane_bits) (rounded > 65504.0f);
        choose(&rounded, &is_large, &endless, &rounded);
        choose(scale, &is_small, &small, &rounded);
        least = (lanes){0} + 0x1p-24f;
    }
    greater(scale, scale, &least);
}

INLINE void span_part(float *scale, float *zero, lanes *low, lanes *high, const nyb_code_span *span)
{
    const lanes none = {0}, one = none + 1.0f, minus_one = -one;
    const lanes least = none + span->lowest, most = none + span->top;
    if (span->symmetric) {
        const lanes other = -*low;
        greater(high, &other, high);
        *low = -*high;
    }
    const lane_bits empty = (lane_bits) (*low == none) & (lane_bits) (*high == none);
    choose(low, &empty, &minus_one, low);
    choose(high, &empty, &one, high);
    const wide_lanes from = __builtin_convertvector(*low, wide_lanes);
    const wide_lanes to = __builtin_convertvector(*high, wide_lanes);
    lanes step = __builtin_convertvector((to - from) / (double) span->top, lanes);
    lanes point = (most + 1.0f) * 0.5f;
    make_storable(&step, span->scale_dtype);
    if (!span->symmetric) {
        const double shift = 0x1.8p52; // rounds to whole numbers, ties to even
        const wide_lanes steps = -from / __builtin_convertvector(step, wide_lanes);
        point = __builtin_convertvector((steps + shift) - shift, lanes);
        const lane_bits under = (lane_bits) (point < least);
        lanes wider = __builtin_convertvector(to / (double) (span->top - span->lowest), lanes);
        make_storable(&wider, span->scale_dtype);
        choose(&step, &under, &wider, &step);
        greater(&point, &point, &least);
        lesser(&point, &point, &most);
    }
    store(scale, &step);
    store(zero, &point);
}

static void spans(float *scale, float *zero, const float *low, const float *high, size_t n,
                  const nyb_code_span *span)
{
    lanes from, to;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        load(&from, low + i);
        load(&to, high + i);
        span_part(scale + i, zero + i, &from, &to, span);
    }
    if (i < n) {
        const size_t some = (n - i) * sizeof(*low);
        float scales[LANES], zeros[LANES];
        from = to = (lanes){0};
        memcpy(&from, low + i, some);
        memcpy(&to, high + i, some);
        span_part(scales, zeros, &from, &to, span);
        memcpy(scale + i, scales, some);
        memcpy(zero + i, zeros, some);
    }
}

// Quotients are slow. A product with the reciprocal is off by less than 1e-4 where it matters, below
// 512, so it has the same nearest integer unless it comes near a tie.
typedef struct divisor {
    float scale, inverse, near; // |distance from the nearest integer| from which on it may differ
} divisor;

INLINE void divisor_of(divisor *d, float scale)
{
    *d = (divisor){scale, 1.0f / scale, scale < 0x1p125f ? 0.4998f : -1.0f};
}

// The integer nearest to x / scale, ties to even, where it is within [-512, 512], else one of those.
INLINE void divide(lanes *x, const divisor *by)
{
    const lanes low = (lanes){0} - 512.0f, high = (lanes){0} + 512.0f;
#ifdef __AVX512F__ // asks all lanes at once whether the quotient itself is wanted
    lanes product = *x * by->inverse;
    greater(&product, &product, &low);
    lesser(&product, &product, &high);
    const float shift = 0x1.8p23f;
    const lanes whole = (product + shift) - shift, off = product - whole;
    if (_mm512_cmp_ps_mask(_mm512_abs_ps((__m512) off), _mm512_set1_ps(by->near), _CMP_GT_OQ) ==
        0) {
        *x = whole;
        return;
    }
#endif
    *x = *x / by->scale;
    snap(x, &low, &high);
}

INLINE void nearest_part(uint8_t *codes, const float *x, const divisor *by, float zero, float top)
{
    // Codes and zero points are below 256, so that clamping before they are added changes nothing.
    const lanes bottom = {0}, end = bottom + top;
    lanes v;
    load(&v, x);
    divide(&v, by);
    v = v + zero;
    greater(&v, &v, &bottom);
    lesser(&v, &v, &end);
    const byte_lanes bytes =
        __builtin_convertvector(__builtin_convertvector(v, lane_ints), byte_lanes);
    memcpy(codes, &bytes, sizeof(bytes));
}

INLINE void nearest_group(uint8_t *codes, const float *x, size_t n, float scale, float zero,
                          float top)
{
    size_t i = 0;
    divisor by;
    divisor_of(&by, scale);
    for (; i + LANES <= n; i += LANES)
        nearest_part(codes + i, x + i, &by, zero, top);
    if (i < n) {
        float some[LANES] = {0};
        uint8_t out[LANES];
        memcpy(some, x + i, (n - i) * sizeof(*x));
        nearest_part(out, some, &by, zero, top);
        memcpy(codes + i, out, n - i);
    }
}

static void nearest(uint8_t *codes, const float *x, size_t n, size_t size, const float *scale,
                    const float *zero, float top)
{
    for (size_t i = 0; i < n; i += size)
        nearest_group(codes + i, x + i, n - i < size ? n - i : size, *scale++, *zero++, top);
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
        .ranges = ranges, .spans = spans, .nearest = nearest, .distance = distance,                \
        .descend = descend, .move = move, .add_rows = add_rows, .turn = turn                       \
    }

#endif // NYB_KERNELS_CODES_LOOPS_H_
