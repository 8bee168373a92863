#include "cli/options.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "cli/text.h"
#include "cli/values.h"

static const char *const computes[] = {"auto", "f32", "bf16", NULL}; // as nyb_compute

const nyb_option nyb_common_options[] = {
    {"threads", 0, NYB_OPTION_SIZE, NYB_INTO(nyb_common, threads), .value = "N", .min = 1,
     .max = 1024, .shown_default = "one for each CPU",
     .about = "Worker threads. Results do not depend on it."},
    {"json", 0, NYB_OPTION_FLAG, NYB_INTO(nyb_common, json),
     .about = "Print the result as one JSON document."},
    {"quiet", 'q', NYB_OPTION_FLAG, NYB_INTO(nyb_common, quiet),
     .about = "No progress and no warnings."},
    {"verbose", 'v', NYB_OPTION_COUNT, NYB_INTO(nyb_common, verbose),
     .about = "Say more; twice, say what helps to find faults."},
    {"help", 'h', NYB_OPTION_FLAG, NYB_INTO(nyb_common, help), .about = "Print this help."},
    {"memory", 0, NYB_OPTION_BYTES, NYB_INTO(nyb_common, memory), .value = "BYTES",
     .shown_default = "no ceiling",
     .about =
         "Ceiling for working memory, for example 800M or 2G. What does not fit goes to disk."},
    {"compute", 0, NYB_OPTION_CHOICE, NYB_INTO(nyb_common, compute), .choices = computes,
     .value = "TYPE", .shown_default = "auto",
     .about = "What matrix products of activations are made of. f32; or bf16 with sums in f32, "
              "which takes about half the time on CPUs that have it. auto: bf16 to calibrate "
              "checkpoints whose weights are bf16 on such a CPU, else f32."},
    {0}};

bool nyb_common_applies(const nyb_command *command, const nyb_option *option)
{
    if (strcmp(option->name, "memory") == 0)
        return command->memory;
    return command->compute || strcmp(option->name, "compute") != 0;
}

bool nyb_option_is_flag(const nyb_option *option)
{
    return option->kind >= NYB_OPTION_FLAG && option->kind <= NYB_OPTION_COUNT;
}

bool nyb_option_is_sound(const nyb_option *option, size_t options_size)
{
    static const size_t sizes[] = {
        [NYB_OPTION_FLAG] = sizeof(bool),         [NYB_OPTION_CLEAR] = sizeof(bool),
        [NYB_OPTION_SWITCH] = sizeof(bool),       [NYB_OPTION_COUNT] = sizeof(unsigned),
        [NYB_OPTION_SIZE] = sizeof(size_t),       [NYB_OPTION_INT] = sizeof(int),
        [NYB_OPTION_REAL] = sizeof(double),       [NYB_OPTION_BYTES] = sizeof(size_t),
        [NYB_OPTION_TEXT] = sizeof(const char *), [NYB_OPTION_PATH] = sizeof(const char *),
        [NYB_OPTION_CHOICE] = sizeof(int),        [NYB_OPTION_TEXTS] = sizeof(nyb_texts),
        [NYB_OPTION_PATHS] = sizeof(nyb_texts),
    };
    return option->kind >= NYB_OPTION_FLAG && option->kind <= NYB_OPTION_PATHS &&
           option->size == sizes[option->kind] && option->offset + option->size <= options_size &&
           (option->choices != NULL) == (option->kind == NYB_OPTION_CHOICE) && option->about;
}

void nyb_option_value_text(const nyb_option *option, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    if (nyb_option_is_flag(option))
        return;
    if (!option->choices || option->value) {
        (void) snprintf(text, size, "%s", option->value ? option->value : "VALUE");
        return;
    }
    for (size_t i = 0; option->choices[i] && used < size; i++)
        used +=
            (size_t) snprintf(text + used, size - used, "%s%s", i ? "|" : "", option->choices[i]);
}

void nyb_option_default_text(const nyb_option *option, const void *defaults, char *text,
                             size_t size)
{
    const char *const field = defaults ? (const char *) defaults + option->offset : NULL;
    text[0] = '\0';
    if (option->shown_default || !field || option->required) {
        (void) snprintf(text, size, "%s", option->shown_default ? option->shown_default : "");
        return;
    }
    switch (option->kind) {
    case NYB_OPTION_SIZE:
        (void) snprintf(text, size, "%zu", *(const size_t *) (const void *) field);
        break;
    case NYB_OPTION_INT:
        (void) snprintf(text, size, "%d", *(const int *) (const void *) field);
        break;
    case NYB_OPTION_REAL:
        (void) snprintf(text, size, "%g", *(const double *) (const void *) field);
        break;
    case NYB_OPTION_BYTES: {
        char amount[32];
        (void) snprintf(text, size, "%s",
                        nyb_bytes_text(amount, *(const size_t *) (const void *) field));
        break;
    }
    case NYB_OPTION_CHOICE:
        (void) snprintf(text, size, "%s", option->choices[*(const int *) (const void *) field]);
        break;
    case NYB_OPTION_TEXT:
    case NYB_OPTION_PATH: {
        const char *const value = *(const char *const *) (const void *) field;
        (void) snprintf(text, size, "%s", value ? value : "");
        break;
    }
    case NYB_OPTION_SWITCH:
        (void) snprintf(text, size, "%s", *(const bool *) (const void *) field ? "on" : "off");
        break;
    case NYB_OPTION_FLAG:
    case NYB_OPTION_CLEAR:
    case NYB_OPTION_COUNT:
    case NYB_OPTION_TEXTS:
    case NYB_OPTION_PATHS:
        break;
    }
}

// A reader's place in the command line, and what it fills.
typedef struct reader {
    nyb_call *call;
    nyb_common *common;
    void *own; // the command's struct
    char **words;
    size_t count, next, operands;
} reader;

// An option found by its name.
typedef struct found {
    const nyb_option *option;
    bool common, off; // off: spelled --no-NAME
} found;

static bool spelled(const nyb_option *option, const char *name, size_t length, bool *off)
{
    *off = false;
    if (strncmp(option->name, name, length) == 0 && option->name[length] == '\0')
        return true;
    *off = option->kind == NYB_OPTION_SWITCH && length > 3 && strncmp(name, "no-", 3) == 0 &&
           strncmp(option->name, name + 3, length - 3) == 0 && option->name[length - 3] == '\0';
    return *off;
}

static found find(const nyb_command *command, const char *name, size_t length, char letter)
{
    const nyb_option *const tables[] = {command->options, nyb_common_options};
    for (size_t t = 0; t < 2; t++) {
        for (const nyb_option *o = tables[t]; o && o->name; o++) {
            bool off = false;
            if (t == 1 && !nyb_common_applies(command, o))
                continue;
            if (name ? spelled(o, name, length, &off) : o->letter == letter)
                return (found){o, t == 1, off};
        }
    }
    return (found){0};
}

// The option whose name is nearest to what was typed, NULL when none is near.
static const char *nearest(const nyb_command *command, const char *name)
{
    const nyb_option *const tables[] = {command->options, nyb_common_options};
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t t = 0; t < 2; t++) {
        for (const nyb_option *o = tables[t]; o && o->name; o++) {
            const size_t distance = nyb_text_distance(name, o->name);
            const size_t length = strlen(name);
            // The start of a name is near to it, however long the rest.
            const bool start = length >= 3 && strncmp(o->name, name, length) == 0;
            if (t == 1 && !nyb_common_applies(command, o))
                continue;
            if ((start ? 1 : distance) < least) {
                least = start ? 1 : distance;
                best = o->name;
            }
        }
    }
    return best && nyb_text_alike(name, least) ? best : NULL;
}

static nyb_exit unknown(const nyb_call *call, const char *name, size_t length)
{
    char typed[64];
    (void) snprintf(typed, sizeof(typed), "%.*s", (int) (length < 60 ? length : 60), name);
    const char *const near = nearest(call->command, typed);
    if (near)
        return nyb_call_usage(call, "unknown option '--%s', did you mean '--%s'?", typed, near);
    return nyb_call_usage(call, "unknown option '--%s'", typed);
}

static void set_flag(const nyb_option *option, bool off, void *target)
{
    void *const field = (char *) target + option->offset;
    if (option->kind == NYB_OPTION_COUNT)
        ++*(unsigned *) field;
    else
        *(bool *) field = !off && option->kind != NYB_OPTION_CLEAR;
}

// Sets what was found. value: what followed in the same word, NULL when nothing did.
static nyb_exit apply(reader *r, found f, const char *value)
{
    void *const target = f.common ? (void *) r->common : r->own;
    char why[256];
    if (!f.common)
        r->call->given |= (uint64_t) 1 << (f.option - r->call->command->options);
    if (nyb_option_is_flag(f.option)) {
        if (value)
            return nyb_call_usage(r->call, "--%s takes no value", f.option->name);
        set_flag(f.option, f.off, target);
        return NYB_EXIT_OK;
    }
    if (!value && r->next == r->count)
        return nyb_call_usage(r->call, "--%s needs a value", f.option->name);
    if (!value)
        value = r->words[r->next++];
    if (!nyb_value_read(f.option, value, target, why))
        return nyb_call_usage(r->call, "--%s %s, not '%s'", f.option->name, why, value);
    return NYB_EXIT_OK;
}

static nyb_exit read_long(reader *r, const char *name)
{
    const char *const equals = strchr(name, '=');
    const size_t length = equals ? (size_t) (equals - name) : strlen(name);
    const found f = find(r->call->command, name, length, 0);
    if (!f.option)
        return unknown(r->call, name, length);
    return apply(r, f, equals ? equals + 1 : NULL);
}

// "-qv", "-o out", "-oout"
static nyb_exit read_short(reader *r, const char *letters)
{
    for (; *letters; letters++) {
        const found f = find(r->call->command, NULL, 0, *letters);
        if (!f.option)
            return nyb_call_usage(r->call, "unknown option '-%c'", *letters);
        const bool flag = nyb_option_is_flag(f.option);
        const nyb_exit code = apply(r, f, flag || !letters[1] ? NULL : letters + 1);
        if (code != NYB_EXIT_OK || !flag)
            return code;
    }
    return NYB_EXIT_OK;
}

static nyb_exit read_words(reader *r)
{
    bool only_operands = false;
    while (r->next < r->count) {
        char *const word = r->words[r->next++];
        nyb_exit code = NYB_EXIT_OK;
        if (only_operands || word[0] != '-' || !word[1])
            r->words[r->operands++] = word;
        else if (strcmp(word, "--") == 0)
            only_operands = true;
        else if (word[1] == '-')
            code = read_long(r, word + 2);
        else
            code = read_short(r, word + 1);
        if (code != NYB_EXIT_OK)
            return code;
    }
    return NYB_EXIT_OK;
}

// What can only be told when all words are read.
static nyb_exit check_whole(const nyb_call *call)
{
    const nyb_command *const command = call->command;
    for (unsigned i = 0; command->options && command->options[i].name; i++) {
        if (command->options[i].required && !(call->given >> i & 1))
            return nyb_call_usage(call, "%s needs --%s", command->name, command->options[i].name);
    }
    if (call->operand_count < command->operand_min)
        return nyb_call_usage(call, "%s needs %s", command->name, command->operands);
    if (call->operand_count > command->operand_max)
        return nyb_call_usage(call, "%s takes %s%s, not '%s'", command->name,
                              command->operands ? "only " : "no operand",
                              command->operands ? command->operands : "",
                              call->operands[command->operand_max]);
    return NYB_EXIT_OK;
}

nyb_exit nyb_options_parse(nyb_call *call, nyb_options_store *store, nyb_common *common,
                           size_t count, char **words)
{
    const nyb_command *const command = call->command;
    assert(command->options_size <= sizeof(store->bytes));
    memset(store, 0, sizeof(*store));
    if (command->defaults)
        memcpy(store->bytes, command->defaults, command->options_size);

    reader r = {
        .call = call, .common = common, .own = store->bytes, .words = words, .count = count};
    const nyb_exit code = read_words(&r);
    call->options = command->options_size ? store->bytes : NULL;
    call->operands = (const char *const *) words;
    call->operand_count = r.operands;
    if (code != NYB_EXIT_OK || common->help)
        return code;
    return check_whole(call);
}
