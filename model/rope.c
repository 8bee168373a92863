#include "model/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

// Frequencies between the two wavelengths go smoothly from kept to divided by the factor.
static double llama3_frequency(const nyb_rope_config *rope, double frequency)
{
    const double wavelength = 2.0 * pi / frequency;
    if (wavelength > rope->original_positions / rope->low_freq)
        return frequency / rope->factor;
    if (wavelength < rope->original_positions / rope->high_freq)
        return frequency;
    const double smooth = (rope->original_positions / wavelength - rope->low_freq) /
                          (rope->high_freq - rope->low_freq);
    return (1.0 - smooth) * frequency / rope->factor + smooth * frequency;
}

// The pair that makes this many turns over the original positions.
static double yarn_pair(const nyb_rope_config *rope, double turns)
{
    return (double) rope->dims * log(rope->original_positions / (turns * 2.0 * pi)) /
           (2.0 * log(rope->theta));
}

// Peng et al., "YaRN", arXiv:2309.00071, section 3.2: pairs that turn often keep their frequency,
// slow ones are divided by the factor, with a ramp between.
static double yarn_frequency(const nyb_rope_config *rope, double frequency, size_t pair)
{
    double low = yarn_pair(rope, rope->fast), high = yarn_pair(rope, rope->slow);
    if (rope->whole) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0.0 ? low : 0.0;
    high = high < (double) rope->dims - 1.0 ? high : (double) rope->dims - 1.0;
    if (low == high)
        high += 0.001;
    double slow = ((double) pair - low) / (high - low);
    slow = slow < 0.0 ? 0.0 : slow > 1.0 ? 1.0 : slow;
    return frequency / rope->factor * slow + frequency * (1.0 - slow);
}

// The base grows with the sequence once that is longer than the model was made for.
static double dynamic_theta(const nyb_rope_config *rope, size_t length)
{
    const double most = rope->original_positions, dims = (double) rope->dims;
    const double positions = (double) length > most ? (double) length : most;
    return rope->theta *
           pow(rope->factor * positions / most - (rope->factor - 1.0), dims / (dims - 2.0));
}

void nyb_rope_frequencies(float *frequencies, const nyb_rope_config *rope, size_t length)
{
    const double theta = rope->kind == NYB_ROPE_DYNAMIC ? dynamic_theta(rope, length) : rope->theta;
    const float *const factors =
        (double) length > rope->original_positions ? rope->long_factors : rope->short_factors;
    for (size_t pair = 0; pair < rope->dims / 2; pair++) {
        // Models are trained with frequencies that were rounded to f32 on the way; so are these.
        const float exponent = (float) (2 * pair) / (float) rope->dims;
        const float power = (float) pow(theta, (double) exponent);
        double frequency = (double) (1.0f / power);
        if (rope->kind == NYB_ROPE_LINEAR)
            frequency /= rope->factor;
        else if (rope->kind == NYB_ROPE_LLAMA3)
            frequency = llama3_frequency(rope, frequency);
        else if (rope->kind == NYB_ROPE_YARN)
            frequency = yarn_frequency(rope, frequency, pair);
        else if (rope->kind == NYB_ROPE_LONGROPE)
            frequency = (double) (1.0f / (factors[pair] * power));
        frequencies[pair] = (float) frequency;
    }
}

void nyb_rope_row(float *row, const float *frequencies, size_t half, size_t position,
                  float magnitude)
{
    for (size_t i = 0; i < half; i++) {
        const float angle = (float) position * frequencies[i];
        row[i] = (float) cos((double) angle) * magnitude;
        row[half + i] = (float) sin((double) angle) * magnitude;
    }
}
