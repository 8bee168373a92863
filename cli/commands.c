#include "cli/commands.h"

#include <string.h>

#include "cli/text.h"

extern const nyb_command nyb_command_allocate, nyb_command_calibrate, nyb_command_compare,
    nyb_command_convert, nyb_command_eval, nyb_command_generate, nyb_command_help,
    nyb_command_inspect, nyb_command_logits, nyb_command_merge, nyb_command_plan,
    nyb_command_predict, nyb_command_quantize, nyb_command_report, nyb_command_rotate,
    nyb_command_solve, nyb_command_sweep, nyb_command_tokenize, nyb_command_version;

// In the order of the lists that people read: the main job first.
const nyb_command *const nyb_commands[] = {
    &nyb_command_quantize,  //
    &nyb_command_plan,      //
    &nyb_command_calibrate, //
    &nyb_command_allocate,  //
    &nyb_command_sweep,     //
    &nyb_command_convert,   //
    &nyb_command_merge,     //
    &nyb_command_rotate,    //
    &nyb_command_compare,   //
    &nyb_command_report,    //
    &nyb_command_eval,      //
    &nyb_command_generate,  //
    &nyb_command_logits,    //
    &nyb_command_predict,   //
    &nyb_command_inspect,   //
    &nyb_command_solve,     //
    &nyb_command_tokenize,  //
    &nyb_command_help,      //
    &nyb_command_version,   //
    NULL,
};

const nyb_command *nyb_command_find(const char *name)
{
    for (size_t i = 0; nyb_commands[i]; i++) {
        if (strcmp(nyb_commands[i]->name, name) == 0)
            return nyb_commands[i];
    }
    return NULL;
}

const char *nyb_command_nearest(const char *name)
{
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; nyb_commands[i]; i++) {
        const size_t distance = nyb_text_distance(name, nyb_commands[i]->name);
        if (distance < least) {
            least = distance;
            best = nyb_commands[i]->name;
        }
    }
    return best && nyb_text_alike(name, least) ? best : NULL;
}
