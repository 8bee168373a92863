#include <ctype.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "nybble/version.h"

// Text as man(7) wants it: hyphens and backslashes escaped, no line that starts as a request.
static void put(FILE *out, const char *text)
{
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            (void) fputs("\\&", out);
        if (*text == '-')
            (void) fputs("\\-", out);
        else if (*text == '\\')
            (void) fputs("\\e", out);
        else
            (void) fputc(*text, out);
        start = *text == '\n';
    }
}

static void put_bold(FILE *out, const char *text)
{
    (void) fputs("\\fB", out);
    put(out, text);
    (void) fputs("\\fR", out);
}

// Paragraphs are parted by .PP; words flow.
static void put_paragraphs(FILE *out, const char *text)
{
    while (*text) {
        const size_t length = strcspn(text, "\n");
        char line[1024];
        (void) snprintf(line, sizeof(line), "%.*s", (int) length, text);
        if (length == 0)
            (void) fputs(".PP\n", out);
        else {
            put(out, line);
            (void) fputc('\n', out);
        }
        text += length + (text[length] == '\n');
    }
}

static void put_option(FILE *out, const nyb_option *option, const void *defaults)
{
    char name[128], value[200], fallback[200];
    const bool negatable = option->kind == NYB_OPTION_SWITCH;
    nyb_option_value_text(option, value, sizeof(value));
    nyb_option_default_text(option, defaults, fallback, sizeof(fallback));

    (void) fputs(".TP\n", out);
    if (option->letter) {
        const char letter[3] = {'-', option->letter, '\0'};
        put_bold(out, letter);
        (void) fputs(", ", out);
    }
    (void) snprintf(name, sizeof(name), "--%s%s", negatable ? "[no-]" : "", option->name);
    put_bold(out, name);
    if (*value) {
        (void) fputs(option->choices ? " " : " \\fI", out);
        put(out, value);
        (void) fputs(option->choices ? "" : "\\fR", out);
    }
    (void) fputc('\n', out);
    put(out, option->about);
    (void) fputc('\n', out);
    if (*fallback) {
        (void) fputs("Default: ", out);
        put(out, fallback);
        (void) fputs(".\n", out);
    }
}

static void put_title(FILE *out, const char *name)
{
    char upper[64] = "";
    for (size_t i = 0; name[i] && i < sizeof(upper) - 1; i++)
        upper[i] = (char) toupper((unsigned char) name[i]);
    (void) fputs(".TH ", out);
    put(out, upper);
    (void) fprintf(out, " 1 \"\" \"nybble %s\" \"User Commands\"\n", nyb_version());
}

static void put_exit_status(FILE *out)
{
    (void) fputs(".SH EXIT STATUS\n"
                 "0: done. 1: failed, with one line on standard error that says why.\n"
                 "2: the command line is wrong.\n"
                 "3: done, but a limit that was set on the quality is missed.\n"
                 "70: a fault of nybble itself.\n",
                 out);
}

static void man_program(FILE *out)
{
    put_title(out, "nybble");
    (void) fputs(".SH NAME\nnybble \\- calibrates and compresses LLM checkpoints on a CPU\n"
                 ".SH SYNOPSIS\n.B nybble\n.I COMMAND\n[options] [operands]\n"
                 ".SH COMMANDS\n",
                 out);
    for (size_t i = 0; nyb_commands[i]; i++) {
        if (nyb_commands[i]->hidden)
            continue;
        (void) fprintf(out, ".TP\n.BR nybble\\-%s (1)\n", nyb_commands[i]->name);
        put(out, nyb_commands[i]->about);
        (void) fputs(".\n", out);
    }
    (void) fputs(".SH ENVIRONMENT\n.TP\n.B NYB_CPU\nThe highest kernel level that may run: "
                 "portable, avx2, avx512, avx512vnni or avx512bf16.\n"
                 ".TP\n.B OPENBLAS_CORETYPE\nThe kernels that OpenBLAS runs. nybble picks them "
                 "by the CPU when it is not set.\n",
                 out);
    put_exit_status(out);
}

void nyb_help_man(FILE *out, const nyb_command *command)
{
    if (!command) {
        man_program(out);
        return;
    }
    char title[64];
    (void) snprintf(title, sizeof(title), "nybble-%s", command->name);
    put_title(out, title);
    (void) fprintf(out, ".SH NAME\nnybble\\-%s \\- ", command->name);
    put(out, command->about);
    (void) fprintf(out, "\n.SH SYNOPSIS\n.B nybble %s\n[options]\n", command->name);
    if (command->operands) {
        put(out, command->operands);
        (void) fputc('\n', out);
    }

    (void) fputs(".SH OPTIONS\n", out);
    for (const nyb_option *o = command->options; o && o->name; o++) {
        if (o->section)
            (void) fprintf(out, ".SS %s\n", o->section);
        put_option(out, o, command->defaults);
    }
    (void) fputs(".SS Common options\n", out);
    for (const nyb_option *o = nyb_common_options; o->name; o++) {
        if (nyb_common_applies(command, o))
            put_option(out, o, NULL);
    }
    if (command->notes) {
        (void) fputs(".SH NOTES\n", out);
        put_paragraphs(out, command->notes);
    }
    put_exit_status(out);
    (void) fputs(".SH EXAMPLES\n", out);
    for (const nyb_example *e = command->examples; e && e->line; e++) {
        (void) fputs(".TP\n", out);
        put_bold(out, e->line);
        (void) fputc('\n', out);
        put(out, e->about);
        (void) fputc('\n', out);
    }
    (void) fputs(".SH SEE ALSO\n.BR nybble (1)\n", out);
}
