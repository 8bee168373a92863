// command.h - what a command of the program is: one const table that parsing, --help, man pages
// and shell completion are made from, and one function that does the work.
//
// A new command is a file cli/cmd_<name>.c like this one, its name in cli/meson.build, and one
// line in cli/commands.c:
//
//     typedef struct options {
//         const char *output;
//         size_t samples;
//         int order; // index in orders
//     } options;
//
//     static const char *const orders[] = {"none", "group", "full", NULL};
//     static const options defaults = {.samples = 128, .order = 1};
//
//     static const nyb_option table[] = {
//         {"output", 'o', NYB_OPTION_PATH, NYB_INTO(options, output), .value = "FOLDER",
//          .about = "Where the result goes.", .required = true},
//         {"num-samples", 0, NYB_OPTION_SIZE, NYB_INTO(options, samples), .value = "N",
//          .min = 1, .max = 1e6, .about = "Windows of text to calibrate with."},
//         {"order", 0, NYB_OPTION_CHOICE, NYB_INTO(options, order), .choices = orders,
//          .about = "Order in which columns are rounded."},
//         {0}};
//
//     static nyb_exit run(const nyb_call *call)
//     {
//         const options *const o = call->options; // the defaults, then what the user gave
//         nyb_err err;
//         nyb_thing *thing = NULL;
//         if (nyb_thing_open(&thing, call->operands[0], &call->context, &err) != NYB_OK)
//             return nyb_call_fail(call, &err); // "nybble: ..." on stderr
//         nyb_thing_close(thing);
//         if (call->json)
//             return nyb_call_answer(call, "{s:I}", "samples", (json_int_t) o->samples);
//         printf("%zu samples\n", o->samples); // results go to stdout, and nothing else does
//         return NYB_EXIT_OK;
//     }
//
//     const nyb_command nyb_command_thing = {
//         .name = "thing", .about = "Does a thing to a model",
//         NYB_COMMAND_OPERANDS("MODEL", 1), NYB_COMMAND_OPTIONS(table, options, defaults),
//         .examples = (const nyb_example[]){{"nybble thing model -o out", "The usual."}, {0}},
//         .run = run};
//
// Every command also has --threads, --json, --quiet, --verbose and --help, and --memory and
// --compute when it says so; they arrive in nyb_call. The program uses the public headers and jansson alone.
#ifndef NYB_CLI_COMMAND_H_
#define NYB_CLI_COMMAND_H_

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nybble/context.h"

typedef enum nyb_exit {
    NYB_EXIT_OK = 0,
    NYB_EXIT_FAILED = 1,
    NYB_EXIT_USAGE = 2,
    NYB_EXIT_GATE = 3, // the work was done, and a limit that the user set on its quality is missed
    NYB_EXIT_BUG = 70,
} nyb_exit;

// The type behind each kind is what the field of the options struct has to be.
typedef enum nyb_option_kind {
    NYB_OPTION_FLAG = 1, // bool            --name
    NYB_OPTION_CLEAR,    // bool            --name makes it false; the last one given wins
    NYB_OPTION_SWITCH,   // bool            --name, --no-name
    NYB_OPTION_COUNT,    // unsigned        how often it was given
    NYB_OPTION_SIZE,     // size_t          a whole number, never negative
    NYB_OPTION_INT,      // int             a whole number
    NYB_OPTION_REAL,     // double
    NYB_OPTION_BYTES,    // size_t          1500000, 64K, 512M, 2G, 1.5GiB (powers of 1024)
    NYB_OPTION_TEXT,     // const char *    lives as long as the program
    NYB_OPTION_PATH,     // const char *    the same, completed as a file name
    NYB_OPTION_CHOICE,   // int or an enum  index in `choices`
    NYB_OPTION_TEXTS,    // nyb_texts       may be given several times
    NYB_OPTION_PATHS,    // nyb_texts       the same, completed as file names
} nyb_option_kind;

enum { NYB_TEXTS_MAX = 32 };

typedef struct nyb_texts {
    const char *at[NYB_TEXTS_MAX];
    size_t count;
} nyb_texts;

// A table ends with an entry without a name.
typedef struct nyb_option {
    const char *name; // long spelling, without dashes
    char letter;      // short spelling, 0: none
    nyb_option_kind kind;
    size_t offset, size;        // of the field: NYB_INTO()
    const char *value;          // what --help calls the value: "N", "FILE"
    const char *about;          // sentences; --help wraps them and adds the default
    const char *shown_default;  // instead of the value in the defaults; "" shows none
    const char *const *choices; // ends with NULL
    double min, max;            // numbers: closed interval; both 0: anything goes
    bool required;              // leaving it out is a usage error
    const char *section;        // a heading that --help prints above this option
} nyb_option;

#define NYB_INTO(type, field) offsetof(type, field), sizeof(((type *) NULL)->field)

typedef struct nyb_example {
    const char *line;  // as typed
    const char *about; // what it does, one sentence
} nyb_example;

typedef struct nyb_call nyb_call;

typedef struct nyb_command {
    const char *name;
    const char *about;               // one line without a full stop, for lists
    const char *operands;            // as usage shows them: "BASE MODEL..."; NULL: none
    size_t operand_min, operand_max; // SIZE_MAX: any number
    const nyb_option *options;       // NULL: the common ones only
    size_t options_size;             // of the struct that they fill, at most 1024
    const void *defaults;            // such a struct
    bool memory, compute;            // whether --memory and --compute apply
    const nyb_example *examples;     // ends with an entry without a line
    const char *notes;               // paragraphs, parted by empty lines; NULL: none
    nyb_exit (*run)(const nyb_call *call);
    bool hidden; // left out of lists
} nyb_command;

// Members of a nyb_command: that many operands, no fewer and no more.
#define NYB_COMMAND_OPERANDS(text, count)                                                          \
    .operands = (text), .operand_min = (count), .operand_max = (count)

// Its table, the struct that the table fills, and the values that this struct begins with.
#define NYB_COMMAND_OPTIONS(table, type, values)                                                   \
    .options = (table), .options_size = sizeof(type), .defaults = &(values)

struct nyb_call {
    const nyb_command *command;
    const void *options; // the command's own struct; NULL when it has none
    const char *const *operands;
    size_t operand_count;
    nyb_context context; // threads, memory, compute, messages and progress on stderr: pass it on
    bool json, quiet;
    unsigned verbose; // how often --verbose was given: 1 shows information, 2 what helps debugging
    uint64_t given;   // bit i: option i of the command's table was on the command line
    const char *line; // the whole command line, as a shell would take it
};

// Whether the user gave this option (by long name), as against its default.
bool nyb_call_given(const nyb_call *call, const char *name);

// Prints "nybble: <err's text>" and returns NYB_EXIT_FAILED.
nyb_exit nyb_call_fail(const nyb_call *call, const nyb_err *err);

// Prints one line that says what was wrong and where --help is; returns NYB_EXIT_USAGE. For
// what the table cannot say: "--hessian and --inputs exclude each other".
__attribute__((format(printf, 2, 3))) nyb_exit nyb_call_usage(const nyb_call *call,
                                                              const char *format, ...);

// Prints "nybble: warning: ..." unless --quiet.
__attribute__((format(printf, 2, 3))) void nyb_call_warn(const nyb_call *call, const char *format,
                                                         ...);

// A JSON object with "schema": "nybble.<command>/1"; printed, and freed, by
// nyb_call_print_json(). JSON has no NaN: nyb_json_finite() gives null instead.
json_t *nyb_call_document(const nyb_call *call);
void nyb_call_print_json(const nyb_call *call, json_t *document);
json_t *nyb_json_finite(double value);

// The same for a document that json_pack() can make: prints the members of the object that `format`
// describes behind "schema", and returns NYB_EXIT_OK.
nyb_exit nyb_call_answer(const nyb_call *call, const char *format, ...);

// A table for people: columns lined up by what a terminal shows, numbers to the right. Cells
// are given row by row.
//
//     static const nyb_column columns[] = {{"method", false}, {"perplexity", true}};
//     nyb_table table = nyb_table_new(columns, 2);
//     nyb_table_cell(&table, "%s", "gptq");
//     nyb_table_cell(&table, "%.2f", 29.77);
//     nyb_table_print(&table); // and frees it
typedef struct nyb_column {
    const char *title;
    bool right;
} nyb_column;

typedef struct nyb_table {
    const nyb_column *columns;
    size_t count;
    json_t *cells; // owned
} nyb_table;

nyb_table nyb_table_new(const nyb_column *columns, size_t count);
__attribute__((format(printf, 2, 3))) void nyb_table_cell(nyb_table *table, const char *format,
                                                          ...);
void nyb_table_print(nyb_table *table);

// "1.50 GiB", "976 bytes": into `text`, which is returned.
const char *nyb_bytes_text(char text[32], uint64_t bytes);

#endif // NYB_CLI_COMMAND_H_
