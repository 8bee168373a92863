#include "cli/values.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/options.h"

static bool whole(const char *text, uint64_t *out)
{
    char *end = NULL;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool real(const char *text, double *out)
{
    char *end = NULL;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text))
        return false;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

// "64K", "1.5GiB", "2 g", "1000"
static bool bytes(const char *text, uint64_t *out)
{
    static const char letters[] = "KMGT";
    char *end = NULL;
    if (*text < '0' || *text > '9')
        return false;
    const double amount = strtod(text, &end);
    const char *unit = end + (*end == ' ');
    double factor = 1.0;
    for (size_t i = 0; *unit && letters[i]; i++) {
        if ((*unit | 0x20) == (letters[i] | 0x20)) {
            factor = ldexp(1.0, 10 * (int) (i + 1));
            unit++;
            break;
        }
    }
    if (strcasecmp(unit, "") != 0 && strcasecmp(unit, "B") != 0 && strcasecmp(unit, "iB") != 0)
        return false;
    if (!(amount * factor < 0x1p63) || strspn(text, "0123456789.") != (size_t) (end - text))
        return false;
    *out = (uint64_t) (amount * factor);
    return true;
}

static bool in_range(const nyb_option *option, double value)
{
    return (option->min == 0.0 && option->max == 0.0) ||
           (value >= option->min && value <= option->max);
}

static bool refuse(const nyb_option *option, const char *wanted, char why[256])
{
    if (option->min == 0.0 && option->max == 0.0)
        (void) snprintf(why, 256, "wants %s", wanted);
    else if (option->max >= 1e15)
        (void) snprintf(why, 256, "wants %s, at least %.10g", wanted, option->min);
    else
        (void) snprintf(why, 256, "wants %s from %.10g to %.10g", wanted, option->min, option->max);
    return false;
}

static bool read_whole(const nyb_option *option, const char *text, size_t *out, char why[256])
{
    uint64_t value = 0;
    if (!whole(text, &value) || value > SIZE_MAX || !in_range(option, (double) value))
        return refuse(option, "a whole number", why);
    *out = (size_t) value;
    return true;
}

static bool read_int(const nyb_option *option, const char *text, int *out, char why[256])
{
    const bool negative = *text == '-';
    uint64_t size = 0;
    if (!whole(text + negative, &size) || size > INT32_MAX)
        return refuse(option, "a whole number", why);
    const int value = negative ? -(int) size : (int) size;
    if (!in_range(option, value))
        return refuse(option, "a whole number", why);
    *out = value;
    return true;
}

static bool read_real(const nyb_option *option, const char *text, double *out, char why[256])
{
    double value = 0.0;
    if (!real(text, &value) || !in_range(option, value))
        return refuse(option, "a number", why);
    *out = value;
    return true;
}

static bool read_bytes(const char *text, size_t *out, char why[256])
{
    uint64_t value = 0;
    if (!bytes(text, &value)) {
        (void) snprintf(why, 256, "wants a size such as 800M or 2G");
        return false;
    }
    *out = (size_t) value;
    return true;
}

static bool read_choice(const nyb_option *option, const char *text, int *out, char why[256])
{
    int used = snprintf(why, 256, "wants one of");
    for (int i = 0; option->choices[i]; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *out = i;
            return true;
        }
        if (used < 256)
            used += snprintf(why + used, 256 - (size_t) used, "%s %s", i ? "," : "",
                             option->choices[i]);
    }
    return false;
}

static bool read_more(nyb_texts *list, const char *text, char why[256])
{
    if (list->count == NYB_TEXTS_MAX) {
        (void) snprintf(why, 256, "may be given at most %d times", (int) NYB_TEXTS_MAX);
        return false;
    }
    list->at[list->count++] = text;
    return true;
}

bool nyb_value_read(const nyb_option *option, const char *text, void *target, char why[256])
{
    void *const field = (char *) target + option->offset;
    switch (option->kind) {
    case NYB_OPTION_SIZE:
        return read_whole(option, text, field, why);
    case NYB_OPTION_INT:
        return read_int(option, text, field, why);
    case NYB_OPTION_REAL:
        return read_real(option, text, field, why);
    case NYB_OPTION_BYTES:
        return read_bytes(text, field, why);
    case NYB_OPTION_CHOICE:
        return read_choice(option, text, field, why);
    case NYB_OPTION_TEXTS:
    case NYB_OPTION_PATHS:
        return read_more(field, text, why);
    case NYB_OPTION_TEXT:
    case NYB_OPTION_PATH:
        *(const char **) field = text;
        return true;
    case NYB_OPTION_FLAG:
    case NYB_OPTION_CLEAR:
    case NYB_OPTION_SWITCH:
    case NYB_OPTION_COUNT:
        break;
    }
    (void) snprintf(why, 256, "takes no value");
    return false;
}
