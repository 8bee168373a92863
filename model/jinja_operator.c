// Operators, subscripts and slices of the template language, as Python has them.
#include <math.h>
#include <string.h>

#include "model/jinja_private.h"
#include "model/unicode.h"

static nyb_status mismatch(nyb_jinja_run *run, const char *name, const nyb_value *a,
                           const nyb_value *b)
{
    return nyb_fail(run->err, NYB_E_FORMAT, "'%s' of %s and %s", name, nyb_value_name(a),
                    nyb_value_name(b));
}

static nyb_status concatenate(nyb_jinja_run *run, const nyb_value *a, const nyb_value *b,
                              nyb_value *out)
{
    nyb_bytes text = {0};
    nyb_status status = nyb_value_print(run, a, &text);
    if (status == NYB_OK)
        status = nyb_value_print(run, b, &text);
    if (status == NYB_OK)
        status = nyb_bytes_status(&text, run->err);
    if (status == NYB_OK)
        status = nyb_jinja_text(run, text.at, text.count, out);
    nyb_bytes_clear(&text);
    return status;
}

static nyb_status join_lists(nyb_jinja_run *run, const nyb_value_list *a, const nyb_value_list *b,
                             nyb_value *out)
{
    nyb_value_list *list = NULL;
    const nyb_status status = nyb_jinja_list(run, a->count + b->count, &list);
    if (status != NYB_OK)
        return status;
    if (a->count > 0)
        memcpy(list->at, a->at, a->count * sizeof(*a->at));
    if (b->count > 0)
        memcpy(list->at + a->count, b->at, b->count * sizeof(*b->at));
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    return NYB_OK;
}

static nyb_status repeat(nyb_jinja_run *run, const nyb_value *text, int64_t times, nyb_value *out)
{
    const size_t count = times > 0 ? (size_t) times : 0;
    size_t bytes = 0;
    if (!nyb_mul_size(count, text->text.length, &bytes))
        return nyb_jinja_too_much(run);
    char *const at = nyb_jinja_alloc(run, bytes, 1);
    if (!at)
        return nyb_jinja_too_much(run);
    for (size_t i = 0; bytes > 0 && i < count; i++)
        memcpy(at + i * text->text.length, text->text.at, text->text.length);
    *out = nyb_value_text(at, bytes);
    return NYB_OK;
}

static bool is_whole(const nyb_value *v)
{
    return v->kind == NYB_VALUE_INTEGER || v->kind == NYB_VALUE_BOOL;
}

static bool is_number(const nyb_value *v)
{
    return is_whole(v) || v->kind == NYB_VALUE_REAL;
}

static int64_t whole(const nyb_value *v)
{
    return v->kind == NYB_VALUE_BOOL ? v->truth : v->integer;
}

static double real(const nyb_value *v)
{
    return v->kind == NYB_VALUE_REAL ? v->real : (double) whole(v);
}

static nyb_status whole_numbers(nyb_jinja_run *run, const char *name, int64_t a, int64_t b,
                                nyb_value *out)
{
    int64_t result = 0;
    bool fits = true;
    if (strchr("/%", *name) && (b == 0 || (a == INT64_MIN && b == -1)))
        return nyb_fail(run->err, NYB_E_FORMAT, "'%s' by %lld", name, (long long) b);
    if (*name == '+')
        fits = !__builtin_add_overflow(a, b, &result);
    else if (*name == '-')
        fits = !__builtin_sub_overflow(a, b, &result);
    else if (*name == '*')
        fits = !__builtin_mul_overflow(a, b, &result);
    else if (*name == '/') // rounds down
        result = a / b - (a % b != 0 && (a % b < 0) != (b < 0));
    else // its sign is b's
        result = a % b + (a % b != 0 && (a % b < 0) != (b < 0) ? b : 0);
    *out = nyb_value_integer(result);
    return fits ? NYB_OK
                : nyb_fail(run->err, NYB_E_FORMAT, "'%s' of %lld and %lld is too large", name,
                           (long long) a, (long long) b);
}

static nyb_status numbers(nyb_jinja_run *run, const char *name, const nyb_value *a,
                          const nyb_value *b, nyb_value *out)
{
    if (strcmp(name, "**") == 0)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "the operator '**' is not supported");
    if (is_whole(a) && is_whole(b) && strcmp(name, "/") != 0)
        return whole_numbers(run, name, whole(a), whole(b), out);
    const double x = real(a), y = real(b);
    if (strchr("/%", *name) && y == 0.0)
        return nyb_fail(run->err, NYB_E_FORMAT, "'%s' by 0", name);
    double result = 0.0;
    if (*name == '%')
        result = x - y * floor(x / y);
    else
        result = *name == '+'   ? x + y
                 : *name == '-' ? x - y
                 : *name == '*' ? x * y
                 : name[1]      ? floor(x / y)
                                : x / y;
    *out = (nyb_value){.kind = NYB_VALUE_REAL, .real = result};
    return NYB_OK;
}

static nyb_status contains(nyb_jinja_run *run, const nyb_value *a, const nyb_value *b,
                           nyb_value *out)
{
    bool found = false;
    if (b->kind == NYB_VALUE_TEXT) {
        if (a->kind != NYB_VALUE_TEXT)
            return mismatch(run, "in", a, b);
        const size_t length = a->text.length;
        for (size_t at = 0; !found && at + length <= b->text.length; at++)
            found = length == 0 || memcmp(b->text.at + at, a->text.at, length) == 0;
    } else if (b->kind == NYB_VALUE_MAP) {
        found = a->kind == NYB_VALUE_TEXT && nyb_value_find(b->map, a->text.at, a->text.length);
    } else if (b->kind == NYB_VALUE_LIST) {
        for (size_t i = 0; !found && i < b->list->count; i++)
            found = nyb_value_equal(a, &b->list->at[i]);
    } else if (b->kind != NYB_VALUE_UNDEFINED) {
        return mismatch(run, "in", a, b);
    }
    *out = nyb_value_bool(found);
    return NYB_OK;
}

static nyb_status order(nyb_jinja_run *run, const char *name, const nyb_value *a,
                        const nyb_value *b, nyb_value *out)
{
    int sign = 0;
    if (is_number(a) && is_number(b)) {
        sign = real(a) < real(b) ? -1 : real(a) > real(b);
    } else if (a->kind == NYB_VALUE_TEXT && b->kind == NYB_VALUE_TEXT) {
        const size_t shorter = a->text.length < b->text.length ? a->text.length : b->text.length;
        sign = shorter > 0 ? memcmp(a->text.at, b->text.at, shorter) : 0;
        if (sign == 0)
            sign = a->text.length < b->text.length ? -1 : a->text.length > b->text.length;
    } else {
        return mismatch(run, name, a, b);
    }
    const bool equal = name[1] == '=';
    *out = nyb_value_bool((*name == '<' ? sign < 0 : sign > 0) || (equal && sign == 0));
    return NYB_OK;
}

nyb_status nyb_jinja_binary(nyb_jinja_run *run, const char *name, const nyb_value *a,
                            const nyb_value *b, nyb_value *out)
{
    if (strcmp(name, "==") == 0 || strcmp(name, "!=") == 0) {
        *out = nyb_value_bool(nyb_value_equal(a, b) == (*name == '='));
        return NYB_OK;
    }
    if (strcmp(name, "in") == 0)
        return contains(run, a, b, out);
    if (*name == '~')
        return concatenate(run, a, b, out);
    if (*name == '<' || *name == '>')
        return order(run, name, a, b, out);
    if (is_number(a) && is_number(b))
        return numbers(run, name, a, b, out);
    if (*name == '+' && a->kind == NYB_VALUE_TEXT && b->kind == NYB_VALUE_TEXT)
        return concatenate(run, a, b, out);
    if (*name == '+' && a->kind == NYB_VALUE_LIST && b->kind == NYB_VALUE_LIST)
        return join_lists(run, a->list, b->list, out);
    if (strcmp(name, "*") == 0 && a->kind == NYB_VALUE_TEXT && is_whole(b))
        return repeat(run, a, whole(b), out);
    if (*name == '%' && a->kind == NYB_VALUE_TEXT)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED, "formatting with '%%' is not supported");
    return mismatch(run, name, a, b);
}

nyb_status nyb_jinja_item(nyb_jinja_run *run, const nyb_value *v, const nyb_value *key,
                          nyb_value *out)
{
    const nyb_value_list *list = NULL;
    *out = nyb_value_undefined();
    if (v->kind == NYB_VALUE_UNDEFINED)
        return nyb_fail(run->err, NYB_E_FORMAT, "a member is asked of an undefined value");
    if (v->kind == NYB_VALUE_MAP && key->kind == NYB_VALUE_TEXT) {
        const nyb_value *const found = nyb_value_find(v->map, key->text.at, key->text.length);
        if (found)
            *out = *found;
        return NYB_OK;
    }
    if ((v->kind != NYB_VALUE_LIST && v->kind != NYB_VALUE_TEXT) || !is_whole(key))
        return NYB_OK;
    const nyb_status status = nyb_value_members(run, v, &list);
    if (status != NYB_OK)
        return status;
    const int64_t i = whole(key), count = (int64_t) list->count;
    if (i >= -count && i < count)
        *out = list->at[i < 0 ? i + count : i];
    return NYB_OK;
}

// A slice's bound, moved into [low, high].
static int64_t bound(const nyb_value *v, int64_t usual, int64_t count, int64_t low, int64_t high)
{
    if (v->kind == NYB_VALUE_NONE)
        return usual;
    int64_t at = whole(v);
    if (at < 0)
        at += count;
    return at < low ? low : at > high ? high : at;
}

nyb_status nyb_jinja_slice(nyb_jinja_run *run, const nyb_value *v, const nyb_value bounds[3],
                           nyb_value *out)
{
    const nyb_value_list *all = NULL;
    nyb_value_list *part = NULL;
    for (size_t i = 0; i < 3; i++)
        if (bounds[i].kind != NYB_VALUE_NONE && !is_whole(&bounds[i]))
            return nyb_fail(run->err, NYB_E_FORMAT, "a slice's bound is %s",
                            nyb_value_name(&bounds[i]));
    if (v->kind != NYB_VALUE_LIST && v->kind != NYB_VALUE_TEXT)
        return nyb_fail(run->err, NYB_E_FORMAT, "a slice of %s", nyb_value_name(v));
    nyb_status status = nyb_value_members(run, v, &all);
    if (status == NYB_OK)
        status = nyb_jinja_list(run, all->count, &part);
    if (status != NYB_OK)
        return status;

    const int64_t count = (int64_t) all->count;
    int64_t step = bounds[2].kind == NYB_VALUE_NONE ? 1 : whole(&bounds[2]);
    if (step == 0)
        return nyb_fail(run->err, NYB_E_FORMAT, "a slice's step is 0");
    step = step > count + 1 ? count + 1 : step < -count - 1 ? -count - 1 : step;
    const bool up = step > 0;
    const int64_t low = up ? 0 : -1, high = up ? count : count - 1;
    const int64_t begin = bound(&bounds[0], up ? 0 : count - 1, count, low, high);
    const int64_t end = bound(&bounds[1], up ? count : -1, count, low, high);
    part->count = 0;
    for (int64_t i = begin; up ? i < end : i > end; i += step)
        part->at[part->count++] = all->at[i];
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = part};
    if (v->kind == NYB_VALUE_LIST)
        return NYB_OK;

    nyb_bytes text = {0};
    for (size_t i = 0; i < part->count; i++)
        nyb_bytes_add(&text, part->at[i].text.at, part->at[i].text.length);
    status = nyb_bytes_status(&text, run->err);
    if (status == NYB_OK)
        status = nyb_jinja_text(run, text.at, text.count, out);
    nyb_bytes_clear(&text);
    return status;
}
