#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/console.h"

bool nyb_call_given(const nyb_call *call, const char *name)
{
    const nyb_option *const options = call->command->options;
    for (unsigned i = 0; options && options[i].name; i++) {
        if (strcmp(options[i].name, name) == 0)
            return (call->given >> i & 1) != 0;
    }
    return false;
}

nyb_exit nyb_call_fail(const nyb_call *call, const nyb_err *err)
{
    nyb_console_say(call->context.user, "", err->text);
    return NYB_EXIT_FAILED;
}

nyb_exit nyb_call_usage(const nyb_call *call, const char *format, ...)
{
    char what[768], line[1024];
    va_list args;
    va_start(args, format);
    (void) vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    (void) snprintf(line, sizeof(line), "%s (see 'nybble %s --help')", what, call->command->name);
    nyb_console_say(call->context.user, "", line);
    return NYB_EXIT_USAGE;
}

void nyb_call_warn(const nyb_call *call, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    (void) vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (call->context.log)
        call->context.log(call->context.user, NYB_LOG_WARNING, line);
}

json_t *nyb_call_document(const nyb_call *call)
{
    json_t *const document = json_object();
    (void) json_object_set_new(document, "schema",
                               json_sprintf("nybble.%s/1", call->command->name));
    return document;
}

void nyb_call_print_json(const nyb_call *call, json_t *document)
{
    nyb_console_clear(call->context.user);
    (void) json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    (void) fputc('\n', stdout);
    json_decref(document);
}

nyb_exit nyb_call_answer(const nyb_call *call, const char *format, ...)
{
    json_t *const document = nyb_call_document(call);
    va_list args;
    va_start(args, format);
    json_t *const members = json_vpack_ex(NULL, 0, format, args);
    va_end(args);
    if (json_object_update_new(document, members) != 0) {
        json_decref(document);
        nyb_console_say(call->context.user, "", "no memory for the result as JSON");
        return NYB_EXIT_FAILED;
    }
    nyb_call_print_json(call, document);
    return NYB_EXIT_OK;
}

json_t *nyb_json_finite(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

const char *nyb_bytes_text(char text[32], uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double amount = (double) bytes;
    size_t unit = 0;
    if (bytes < 1024) {
        (void) snprintf(text, 32, "%u bytes", (unsigned) bytes);
        return text;
    }
    for (amount /= 1024.0; amount >= 1023.995 && unit < 5; amount /= 1024.0)
        unit++;
    (void) snprintf(text, 32, "%.2f %s", amount, units[unit]);
    return text;
}
