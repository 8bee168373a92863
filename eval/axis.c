#include "eval/axis.h"

#include <math.h>
#include <stdio.h>

static const double room = 0.05; // at each end, as a share of the range

void nyb_extent_add(nyb_extent *extent, double value)
{
    if (!isfinite(value))
        return;
    extent->low = value < extent->low ? value : extent->low;
    extent->high = value > extent->high ? value : extent->high;
}

bool nyb_extent_is_empty(const nyb_extent *extent)
{
    return extent->low > extent->high;
}

nyb_axis nyb_axis_of(const nyb_extent *extent, bool log, double from, double to)
{
    nyb_axis axis = {.low = 0.0, .high = 1.0, .from = from, .to = to};
    if (nyb_extent_is_empty(extent))
        return axis;
    double low = extent->low, high = extent->high;
    axis.log = log && low > 0.0 && high / low >= 2.0;
    if (axis.log) {
        low = log10(low);
        high = log10(high);
    }
    double more = room * (high - low);
    if (!(more > 0.0))
        more = low != 0.0 ? 0.1 * fabs(low) : 0.5;
    low -= more;
    high += more;
    if (!axis.log && extent->low >= 0.0 && low < 0.0)
        low = 0.0; // nothing below zero is there to be seen
    axis.low = axis.log ? pow(10.0, low) : low;
    axis.high = axis.log ? pow(10.0, high) : high;
    return axis;
}

double nyb_axis_place(const nyb_axis *axis, double value)
{
    const double share = axis->log ? log(value / axis->low) / log(axis->high / axis->low)
                                   : (value - axis->low) / (axis->high - axis->low);
    return axis->from + share * (axis->to - axis->from);
}

static void add_tick(nyb_ticks *ticks, const nyb_axis *axis, double value)
{
    const double slack = 1e-9 * (axis->high - axis->low);
    const bool inside = axis->log
                            ? value >= axis->low * (1 - 1e-9) && value <= axis->high * (1 + 1e-9)
                            : value >= axis->low - slack && value <= axis->high + slack;
    if (inside && ticks->count < NYB_TICKS_MAX)
        ticks->at[ticks->count++] = value;
}

// Whole multiples of 1, 2 or 5 times a power of ten.
static nyb_ticks linear_ticks(const nyb_axis *axis, size_t wanted)
{
    nyb_ticks ticks = {0};
    const double raw = (axis->high - axis->low) / (double) wanted;
    const double power = floor(log10(raw));
    const double unit = pow(10.0, power), part = raw / unit;
    const double times = part <= 1.0 ? 1.0 : part <= 2.0 ? 2.0 : part <= 5.0 ? 5.0 : 10.0;
    const double first = ceil(axis->low / (times * unit) - 1e-9);
    for (size_t i = 0; i < NYB_TICKS_MAX; i++) {
        // Dividing by a power of ten keeps 0.3 at 0.3, where multiplying by 0.1 does not.
        const double whole = (first + (double) i) * times;
        add_tick(&ticks, axis, power < 0.0 ? whole / pow(10.0, -power) : whole * unit);
    }
    return ticks;
}

// These multiples of each power of ten; with one alone, of every `stride`th power.
static nyb_ticks decade_ticks(const nyb_axis *axis, const char *multiples, int stride)
{
    nyb_ticks ticks = {0};
    const int first = (int) floor(log10(axis->low)), last = (int) ceil(log10(axis->high));
    for (int power = first; power <= last; power++) {
        if (stride > 1 && power % stride != 0)
            continue;
        for (const char *m = multiples; *m; m++) {
            const double times = (double) (*m - '0');
            add_tick(&ticks, axis,
                     power < 0 ? times / pow(10.0, -power) : times * pow(10.0, power));
        }
    }
    return ticks;
}

static nyb_ticks log_ticks(const nyb_axis *axis, size_t wanted)
{
    static const char *const sets[] = {"1", "13", "125", "12357", "123456789"};
    const double decades = log10(axis->high / axis->low);
    const int stride = (int) ceil(decades / (double) (wanted + 2));
    nyb_ticks best = {0};
    if (stride > 1)
        return decade_ticks(axis, "1", stride);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        const nyb_ticks ticks = decade_ticks(axis, sets[i], 1);
        if (ticks.count > wanted + 2 && best.count >= 2)
            break;
        best = ticks;
        if (best.count >= wanted)
            break;
    }
    return best.count >= 3 ? best : linear_ticks(axis, wanted);
}

nyb_ticks nyb_axis_ticks(const nyb_axis *axis, size_t wanted)
{
    return axis->log ? log_ticks(axis, wanted) : linear_ticks(axis, wanted);
}

const char *nyb_tick_text(char out[NYB_NUMBER_TEXT], double value)
{
    const double size = fabs(value);
    if (size != 0.0 && (size < 1e-4 || size >= 1e6)) {
        const double power = floor(log10(size) + 1e-9);
        (void) snprintf(out, NYB_NUMBER_TEXT, "%ge%.0f", value / pow(10.0, power), power);
        return out;
    }
    if (size >= 1000.0)
        return nyb_count_text(out, value);
    (void) snprintf(out, NYB_NUMBER_TEXT, "%.6g", size == 0.0 ? 0.0 : value);
    return out;
}
