#include "ptq/observer.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/qweight.h"
#include "ptq/grid.h"

enum {
    BINS = NYB_OBSERVER_BINS,
    CANDIDATES = 64, // ranges that are tried
};

static const double default_percentile = 99.99;

static const char *const names[NYB_RANGE_COUNT] = {"absmax", "percentile", "mse", "entropy"};

const char *nyb_range_name(nyb_range range)
{
    return (unsigned) range < NYB_RANGE_COUNT ? names[range] : "?";
}

bool nyb_range_by_name(const char *name, nyb_range *out)
{
    for (unsigned i = 0; i < NYB_RANGE_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (nyb_range) i;
            return true;
        }
    }
    return false;
}

// ---- Seeing ---------------------------------------------------------------------------------

static float absmax_of(const nyb_observer *o)
{
    return fmaxf(-o->low, o->high);
}

// Makes room for magnitudes below 2^exponent.
static void reach(nyb_observer *o, int exponent)
{
    const int more = exponent - o->exponent;
    o->exponent = exponent;
    if (more >= 11) { // 2^11 bins: all that was seen is in the first one now
        uint64_t all = 0;
        for (size_t i = 0; i < BINS; i++)
            all += o->bins[i];
        memset(o->bins, 0, sizeof(o->bins));
        o->bins[0] = all;
        return;
    }
    for (int k = 0; k < more; k++) {
        for (size_t i = 0; i < BINS / 2; i++)
            o->bins[i] = o->bins[2 * i] + o->bins[2 * i + 1];
        memset(o->bins + BINS / 2, 0, BINS / 2 * sizeof(o->bins[0]));
    }
}

static void widen(nyb_observer *o, float low, float high)
{
    const float before = absmax_of(o);
    int exponent = 0;
    o->low = fminf(o->low, low);
    o->high = fmaxf(o->high, high);
    if (absmax_of(o) == before)
        return;
    (void) frexpf(absmax_of(o), &exponent);
    if (before == 0.0f) // zeros are in the first bin, whatever it reaches to
        o->exponent = exponent;
    else if (exponent > o->exponent)
        reach(o, exponent);
}

void nyb_observer_add(nyb_observer *o, const float *x, size_t n, size_t stride)
{
    float low = 0.0f, high = 0.0f;
    for (size_t i = 0; i < n; i++) {
        low = fminf(low, x[i * stride]);
        high = fmaxf(high, x[i * stride]);
    }
    widen(o, low, high);
    o->count += n;
    const double scale = ldexp((double) BINS, -o->exponent);
    for (size_t i = 0; i < n; i++) {
        const double at = (double) fabsf(x[i * stride]) * scale;
        o->bins[at < BINS ? (size_t) at : BINS - 1]++;
    }
}

void nyb_observer_merge(nyb_observer *o, const nyb_observer *other)
{
    nyb_observer as_wide = *other;
    widen(o, other->low, other->high);
    if (absmax_of(other) == 0.0f)
        as_wide.exponent = o->exponent;
    else if (o->exponent > as_wide.exponent)
        reach(&as_wide, o->exponent);
    o->count += other->count;
    for (size_t i = 0; i < BINS; i++)
        o->bins[i] += as_wide.bins[i];
}

// ---- Choosing -------------------------------------------------------------------------------

static double width_of(const nyb_observer *o)
{
    return ldexp(1.0 / BINS, o->exponent);
}

// Bins up to the one with the largest magnitude.
static size_t used_bins(const nyb_observer *o)
{
    size_t used = BINS;
    while (used > 1 && o->bins[used - 1] == 0)
        used--;
    return used;
}

static float percentile(const nyb_observer *o, double percent)
{
    const double wanted = ceil(percent / 100.0 * (double) o->count);
    uint64_t seen = 0;
    for (size_t i = 0; i < BINS; i++) {
        seen += o->bins[i];
        if ((double) seen >= wanted)
            return fminf((float) ((double) (i + 1) * width_of(o)), absmax_of(o));
    }
    return absmax_of(o);
}

// The nearest number that a value this many steps large can become.
static double rounded(double steps, nyb_rounding_to rounding)
{
    if (steps >= (double) rounding.top)
        return (double) rounding.top;
    if (rounding.kind == NYB_CODE_INT)
        return rint(steps);
    return (double) nyb_round_to((float) steps, nyb_code_dtype(rounding.kind));
}

// Every value of a bin is taken for its middle.
static double square_error(const nyb_observer *o, size_t used, double range,
                           nyb_rounding_to rounding)
{
    const double step = range / (double) rounding.top, width = width_of(o);
    double error = 0.0;
    for (size_t i = 0; i < used; i++) {
        if (o->bins[i] == 0)
            continue;
        const double value = ((double) i + 0.5) * width;
        const double off = value - step * rounded(value / step, rounding);
        error += (double) o->bins[i] * off * off;
    }
    return error;
}

static float least_square_error(const nyb_observer *o, nyb_rounding_to rounding)
{
    const double most = (double) absmax_of(o);
    const size_t used = used_bins(o);
    double best = most, least = square_error(o, used, most, rounding);
    for (int k = CANDIDATES - 1; k >= CANDIDATES / 8; k--) {
        const double range = most * k / CANDIDATES;
        const double error = square_error(o, used, range, rounding);
        if (error < least) {
            least = error;
            best = range;
        }
    }
    return (float) best;
}

// Divergence of the first `kept` bins, what lies behind them added to the last, from the same bins
// spread evenly over each of `levels` runs of them.
static double divergence(const nyb_observer *o, size_t used, size_t kept, size_t levels)
{
    const double total = (double) o->count;
    double inside = 0.0, sum = 0.0, outside = 0.0;
    for (size_t i = 0; i < used; i++)
        *(i < kept ? &inside : &outside) += (double) o->bins[i];
    for (size_t l = 0; l < levels; l++) {
        const size_t first = l * kept / levels, end = (l + 1) * kept / levels;
        double in_run = 0.0, filled = 0.0;
        for (size_t i = first; i < end; i++) {
            in_run += (double) o->bins[i];
            filled += o->bins[i] > 0;
        }
        for (size_t i = first; i < end; i++) {
            const double p = ((double) o->bins[i] + (i + 1 == kept ? outside : 0.0)) / total;
            const double q = o->bins[i] ? in_run / filled / inside : 1e-9;
            sum += p > 0.0 ? p * log(p / q) : 0.0;
        }
    }
    return sum;
}

static float least_divergence(const nyb_observer *o, nyb_rounding_to rounding)
{
    const size_t used = used_bins(o);
    const size_t levels = rounding.kind == NYB_CODE_INT ? (size_t) rounding.top + 1 : 128;
    const size_t least_kept = levels > used / 8 ? levels : used / 8;
    size_t best = used;
    double least = INFINITY;
    if (used <= levels)
        return absmax_of(o);
    for (size_t k = 0; k <= CANDIDATES; k++) {
        const size_t kept = used - k * (used - least_kept) / CANDIDATES;
        const double off = divergence(o, used, kept, levels);
        if (off < least) {
            least = off;
            best = kept;
        }
    }
    return fminf((float) ((double) best * width_of(o)), absmax_of(o));
}

float nyb_observer_range(const nyb_observer *o, const nyb_range_params *params,
                         nyb_rounding_to rounding)
{
    const double percent = params->percentile > 0.0 ? params->percentile : default_percentile;
    if (absmax_of(o) == 0.0f)
        return 0.0f;
    switch (params->kind) {
    case NYB_RANGE_PERCENTILE:
        return percentile(o, percent);
    case NYB_RANGE_MSE:
        return least_square_error(o, rounding);
    case NYB_RANGE_ENTROPY:
        return least_divergence(o, rounding);
    default:
        return absmax_of(o);
    }
}
