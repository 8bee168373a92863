#include <stdio.h>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/topics.h"

typedef struct options {
    bool man, completion, check;
} options;

static const options defaults = {0};

static const nyb_option table[] = {
    {"man", 0, NYB_OPTION_FLAG, NYB_INTO(options, man),
     .about = "Print the manual page in man(7) instead, of the program or of COMMAND."},
    {"completion", 0, NYB_OPTION_FLAG, NYB_INTO(options, completion),
     .about = "Print a completion script for bash instead."},
    {"check", 0, NYB_OPTION_FLAG, NYB_INTO(options, check),
     .about = "Check the option tables of every command instead."},
    {0}};

// A table that breaks its own rules is a fault that only the eye or this finds.
static nyb_exit check_tables(const nyb_call *call)
{
    for (size_t i = 0; nyb_commands[i]; i++) {
        const nyb_command *const c = nyb_commands[i];
        size_t count = 0;
        if (!c->examples || !c->examples[0].line || c->options_size > NYB_OPTIONS_BYTES)
            return nyb_call_usage(call, "command '%s' has no example or too large a struct",
                                  c->name);
        for (const nyb_option *o = c->options; o && o->name; o++) {
            if (!nyb_option_is_sound(o, c->options_size) || ++count > NYB_OPTIONS_MAX)
                return nyb_call_usage(call, "command '%s', option '--%s' is not sound", c->name,
                                      o->name);
        }
    }
    return NYB_EXIT_OK;
}

static const char *const kinds[] = {
    [NYB_OPTION_FLAG] = "flag",   [NYB_OPTION_CLEAR] = "clear",   [NYB_OPTION_SWITCH] = "switch",
    [NYB_OPTION_COUNT] = "count", [NYB_OPTION_SIZE] = "size",     [NYB_OPTION_INT] = "int",
    [NYB_OPTION_REAL] = "real",   [NYB_OPTION_BYTES] = "bytes",   [NYB_OPTION_TEXT] = "text",
    [NYB_OPTION_PATH] = "path",   [NYB_OPTION_CHOICE] = "choice", [NYB_OPTION_TEXTS] = "texts",
    [NYB_OPTION_PATHS] = "paths",
};

static json_t *option_list(const nyb_command *command, const nyb_option *from, bool common)
{
    json_t *const list = json_array();
    for (const nyb_option *o = from; o && o->name; o++) {
        char value[200], fallback[200];
        if (common && !nyb_common_applies(command, o))
            continue;
        nyb_option_value_text(o, value, sizeof(value));
        nyb_option_default_text(o, common ? NULL : command->defaults, fallback, sizeof(fallback));
        (void) json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", o->name,
                                                     "kind", kinds[o->kind], "value", value,
                                                     "default", fallback, "about", o->about));
    }
    return list;
}

static nyb_exit print_json(const nyb_call *call, const nyb_command *only)
{
    json_t *const document = nyb_call_document(call);
    json_t *const list = json_array();
    for (size_t i = 0; nyb_commands[i]; i++) {
        const nyb_command *const c = nyb_commands[i];
        if (only ? c != only : c->hidden)
            continue;
        (void) json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", c->name,
                                                     "about", c->about, "operands",
                                                     c->operands ? c->operands : "", "options",
                                                     option_list(c, c->options, false), "common",
                                                     option_list(c, nyb_common_options, true)));
    }
    (void) json_object_set_new(document, "commands", list);
    nyb_call_print_json(call, document);
    return NYB_EXIT_OK;
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const char *const name = call->operand_count ? call->operands[0] : NULL;
    const nyb_command *const command = name ? nyb_command_find(name) : NULL;
    if (name && !command && nyb_topic_exists(name) && !o->man && !o->completion && !o->check)
        return nyb_topic_print(call, name);
    if (name && !command) {
        const char *const near = nyb_command_nearest(name);
        return near ? nyb_call_usage(call, "no command '%s', did you mean '%s'?", name, near)
                    : nyb_call_usage(call, "no command '%s'", name);
    }
    if (o->check)
        return check_tables(call);
    if (call->json)
        return print_json(call, command);
    if (o->completion)
        nyb_help_completion(stdout);
    else if (o->man)
        nyb_help_man(stdout, command);
    else if (command)
        nyb_help_command(stdout, command);
    else
        nyb_help_program(stdout);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_help = {
    .name = "help",
    .about = "Tells about nybble, one of its commands, or what it supports",
    .operands = "[COMMAND|TOPIC]",
    .operand_max = 1,
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples = (const nyb_example[]){{"nybble help version", "What version does."},
                                      {"nybble help formats", "What it reads and writes."},
                                      {"nybble help --man > nybble.1", "The manual page."},
                                      {0}},
    .run = run,
};
