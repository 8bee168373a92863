#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"

// "--output --[no-]x" as plain words.
static void put_names(FILE *out, const nyb_command *command, const nyb_option *options, bool common)
{
    for (const nyb_option *o = options; o && o->name; o++) {
        if (common && !nyb_common_applies(command, o))
            continue;
        (void) fprintf(out, " --%s", o->name);
        if (o->kind == NYB_OPTION_SWITCH)
            (void) fprintf(out, " --no-%s", o->name);
    }
}

// What may stand behind one option.
static void put_values(FILE *out, const nyb_command *command, const nyb_option *option)
{
    const bool path = option->kind == NYB_OPTION_PATH || option->kind == NYB_OPTION_PATHS;
    if (nyb_option_is_flag(option))
        return;
    (void) fprintf(out, "    '%s --%s'", command->name, option->name);
    if (option->letter)
        (void) fprintf(out, "|'%s -%c'", command->name, option->letter);
    if (path)
        (void) fputs(") COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n", out);
    else {
        (void) fputs(") COMPREPLY=($(compgen -W '", out);
        for (size_t i = 0; option->choices && option->choices[i]; i++)
            (void) fprintf(out, "%s%s", i ? " " : "", option->choices[i]);
        (void) fputs("' -- \"$word\")); return ;;\n", out);
    }
}

void nyb_help_completion(FILE *out)
{
    (void) fputs("# bash completion for nybble\n"
                 "_nybble()\n{\n"
                 "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
                 "    local command=${COMP_WORDS[1]} options=\n"
                 "    compopt -o filenames 2>/dev/null\n"
                 "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                 "        COMPREPLY=($(compgen -W '",
                 out);
    for (size_t i = 0; nyb_commands[i]; i++)
        (void) fprintf(out, "%s%s", i ? " " : "",
                       nyb_commands[i]->hidden ? "" : nyb_commands[i]->name);
    (void) fputs("' -- \"$word\"))\n        return\n    fi\n"
                 "    case \"$command $before\" in\n",
                 out);
    for (size_t i = 0; nyb_commands[i]; i++) {
        for (const nyb_option *o = nyb_commands[i]->options; o && o->name; o++)
            put_values(out, nyb_commands[i], o);
    }
    (void) fputs("    esac\n    case \"$command\" in\n", out);
    for (size_t i = 0; nyb_commands[i]; i++) {
        (void) fprintf(out, "    %s) options='", nyb_commands[i]->name);
        put_names(out, nyb_commands[i], nyb_commands[i]->options, false);
        put_names(out, nyb_commands[i], nyb_common_options, true);
        (void) fputs("' ;;\n", out);
    }
    (void) fputs("    esac\n"
                 "    case \"$word\" in\n"
                 "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
                 "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
                 "    esac\n}\n"
                 "complete -F _nybble nybble\n",
                 out);
}
