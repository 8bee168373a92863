#include "cli/help.h"

#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/text.h"
#include "cli/topics.h"

enum { WIDTH = 88, ABOUT_AT = 30, COMMAND_AT = 14 };

// "-o, --output FOLDER", "    --[no-]verify"
static void spelling(const nyb_option *option, char *text, size_t size)
{
    char value[200], letter[8] = "    ";
    nyb_option_value_text(option, value, sizeof(value));
    if (option->letter)
        (void) snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    (void) snprintf(text, size, "%s--%s%s%s%s", letter,
                    option->kind == NYB_OPTION_SWITCH ? "[no-]" : "", option->name,
                    *value ? " " : "", value);
}

static void print_option(FILE *out, const nyb_option *option, const void *defaults)
{
    char left[300], text[1024], fallback[200];
    spelling(option, left, sizeof(left));
    nyb_option_default_text(option, defaults, fallback, sizeof(fallback));
    (void) snprintf(text, sizeof(text), "%s%s%s%s", option->about, *fallback ? " Default: " : "",
                    fallback, *fallback ? "." : "");

    (void) fprintf(out, "  %s", left);
    if (strlen(left) + 2 < ABOUT_AT)
        (void) fprintf(out, "%*s", (int) (ABOUT_AT - 2 - strlen(left)), "");
    else
        (void) fprintf(out, "\n%*s", (int) ABOUT_AT, "");
    nyb_text_wrap(out, text, ABOUT_AT, WIDTH);
}

static void print_options(FILE *out, const nyb_command *command)
{
    for (const nyb_option *o = command->options; o && o->name; o++) {
        if (o->section || o == command->options)
            (void) fprintf(out, "\n%s:\n", o->section ? o->section : "Options");
        print_option(out, o, command->defaults);
    }
    (void) fprintf(out, "\nCommon options:\n");
    for (const nyb_option *o = nyb_common_options; o->name; o++) {
        if (nyb_common_applies(command, o))
            print_option(out, o, NULL);
    }
}

void nyb_help_command(FILE *out, const nyb_command *command)
{
    (void) fprintf(out, "%s.\n\nUsage: nybble %s [options]%s%s\n", command->about, command->name,
                   command->operands ? " " : "", command->operands ? command->operands : "");
    print_options(out, command);
    if (command->notes) {
        (void) fputc('\n', out);
        nyb_text_wrap(out, command->notes, 0, WIDTH);
    }
    (void) fprintf(out, "\nExamples:\n");
    for (const nyb_example *e = command->examples; e && e->line; e++)
        (void) fprintf(out, "  %s\n      %s\n", e->line, e->about);
}

void nyb_help_program(FILE *out)
{
    (void) fprintf(out, "Calibrates and compresses LLM checkpoints on a CPU.\n\n"
                        "Usage: nybble COMMAND [options] [operands]\n\nCommands:\n");
    for (size_t i = 0; nyb_commands[i]; i++) {
        if (nyb_commands[i]->hidden)
            continue;
        (void) fprintf(out, "  %-*s", COMMAND_AT - 2, nyb_commands[i]->name);
        nyb_text_wrap(out, nyb_commands[i]->about, COMMAND_AT, WIDTH);
    }
    (void) fprintf(out, "\nTopics:\n");
    nyb_topics_list(out, COMMAND_AT, WIDTH);
    (void) fprintf(out, "\n'nybble help COMMAND' tells about one of them, with examples; "
                        "'nybble help TOPIC'\nlists what is supported.\n");
}
