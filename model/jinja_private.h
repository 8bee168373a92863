// jinja_private.h - tokens, syntax trees and values of the template language.
#ifndef NYB_MODEL_JINJA_PRIVATE_H_
#define NYB_MODEL_JINJA_PRIVATE_H_

#include "core/arena.h"
#include "model/jinja.h"

// ---- Tokens -------------------------------------------------------------------------------

typedef enum nyb_jinja_token_kind {
    JINJA_END,        // of the template
    JINJA_DATA,       // text between tags
    JINJA_OUTPUT,     // {{
    JINJA_OUTPUT_END, // }}
    JINJA_BLOCK,      // {%
    JINJA_BLOCK_END,  // %}
    JINJA_NAME,
    JINJA_TEXT, // a string, its escapes resolved
    JINJA_INTEGER,
    JINJA_REAL,
    JINJA_OPERATOR,
} nyb_jinja_token_kind;

typedef struct nyb_jinja_token {
    nyb_jinja_token_kind kind;
    unsigned line;
    const char *text; // data, names, strings; operators: static. NUL-terminated but for data
    size_t length;
    int64_t integer;
    double real;
} nyb_jinja_token;

typedef struct nyb_jinja_tokens {
    nyb_jinja_token *at; // [count], the last one is JINJA_END
    size_t count, room;
} nyb_jinja_tokens;

// Cuts a template into tokens, in the arena.
NYB_NODISCARD nyb_status nyb_jinja_scan(nyb_jinja_tokens *out, nyb_arena *arena, const char *text,
                                        size_t length, nyb_err *err);

// ---- Syntax trees -------------------------------------------------------------------------

typedef enum nyb_jinja_kind {
    // statements
    JINJA_WRITE,      // text
    JINJA_PRINT,      // a
    JINJA_IF,         // a: condition, body, other
    JINJA_FOR,        // list: names, a: what is gone through, b: condition or NULL, body, other
    JINJA_SET,        // list: names, a: value
    JINJA_SET_MEMBER, // text: object, other name in list, a: value
    JINJA_CAPTURE,    // text: name, body
    JINJA_MACRO,      // text: name, list: parameters (a: default or NULL), body
    JINJA_GENERATION, // body
    JINJA_BREAK,
    JINJA_CONTINUE,
    // expressions
    JINJA_LITERAL,  // value in `literal`
    JINJA_VARIABLE, // text
    JINJA_LIST,     // list
    JINJA_MAP,      // list: keys and values in turn
    JINJA_MEMBER,   // a . text
    JINJA_ITEM,     // a [ b ]
    JINJA_SLICE,    // a [ list[0] : list[1] : list[2] ], members may be JINJA_NOTHING
    JINJA_NOTHING,
    JINJA_CALL,     // a ( list )
    JINJA_FILTER,   // a | text ( list )
    JINJA_TEST,     // a is text ( list )
    JINJA_NAMED,    // text = a, an argument or a parameter
    JINJA_BINARY,   // a text b
    JINJA_NOT,      // a
    JINJA_NEGATIVE, // a
    JINJA_AND,      // a, b
    JINJA_OR,       // a, b
    JINJA_CHOICE,   // a if b else other (which may be NULL)
} nyb_jinja_kind;

typedef struct nyb_jinja_node nyb_jinja_node;

typedef enum nyb_value_kind {
    NYB_VALUE_UNDEFINED,
    NYB_VALUE_NONE,
    NYB_VALUE_BOOL,
    NYB_VALUE_INTEGER,
    NYB_VALUE_REAL,
    NYB_VALUE_TEXT,
    NYB_VALUE_LIST,
    NYB_VALUE_MAP,
    NYB_VALUE_MACRO,
} nyb_value_kind;

typedef struct nyb_value nyb_value;
typedef struct nyb_value_list nyb_value_list;
typedef struct nyb_value_map nyb_value_map;

struct nyb_value {
    nyb_value_kind kind;
    union {
        bool truth;
        int64_t integer;
        double real;
        struct {
            const char *at; // no NUL behind it
            size_t length;
        } text;
        const nyb_value_list *list;
        nyb_value_map *map;
        const nyb_jinja_node *macro;
    };
};

struct nyb_value_list {
    size_t count;
    nyb_value *at;
};

typedef struct nyb_value_entry {
    nyb_value key; // text, except in what items() is made of
    nyb_value value;
} nyb_value_entry;

struct nyb_value_map {
    size_t count, room;
    nyb_value_entry *at;
    bool is_namespace; // members can be set
};

struct nyb_jinja_node {
    nyb_jinja_kind kind;
    unsigned line;
    const char *text;
    size_t length;
    nyb_jinja_node *a, *b, *other;
    bool other_is_elif;   // `other` of an if is the next condition
    nyb_jinja_node *list; // first of those linked by `next`
    nyb_jinja_node *body; // statements linked by `next`
    nyb_jinja_node *next;
    nyb_value literal;
};

struct nyb_jinja {
    nyb_arena arena;
    nyb_jinja_node *body;
};

// Reads the tokens into out->body.
NYB_NODISCARD nyb_status nyb_jinja_parse(nyb_jinja *out, const nyb_jinja_tokens *tokens,
                                         nyb_err *err);

// Reads one expression; the rest of the parser is for statements.
typedef struct nyb_jinja_parser {
    nyb_arena *arena;
    const nyb_jinja_token *at;
    unsigned depth;
    nyb_err *err;
    nyb_status status;   // the first fault; every reader does nothing from then on
    nyb_jinja_node none; // handed out behind a fault, never read
} nyb_jinja_parser;

nyb_jinja_node *nyb_jinja_expression(nyb_jinja_parser *p, bool with_choice);
nyb_jinja_node *nyb_jinja_node_new(nyb_jinja_parser *p, nyb_jinja_kind kind);
bool nyb_jinja_is(const nyb_jinja_parser *p, nyb_jinja_token_kind kind, const char *text);
bool nyb_jinja_take(nyb_jinja_parser *p, nyb_jinja_token_kind kind, const char *text);
void nyb_jinja_need(nyb_jinja_parser *p, nyb_jinja_token_kind kind, const char *text);
void nyb_jinja_fault(nyb_jinja_parser *p, nyb_status status, const char *what, const char *name);
nyb_jinja_node *nyb_jinja_parameters(nyb_jinja_parser *p);

// ---- Evaluation ---------------------------------------------------------------------------

typedef struct nyb_jinja_scope nyb_jinja_scope;

// One rendering.
typedef struct nyb_jinja_run {
    nyb_arena arena;
    nyb_jinja_scope *root;
    nyb_ranges *generated;
    size_t steps, bytes; // left
    unsigned depth;
    enum { JINJA_GO_ON, JINJA_LEAVE_LOOP, JINJA_NEXT_ROUND } flow;
    nyb_err *err;
} nyb_jinja_run;

// Memory that counts against the run's bounds; NULL when they are reached.
void *nyb_jinja_alloc(nyb_jinja_run *run, size_t count, size_t size);
nyb_status nyb_jinja_too_much(nyb_jinja_run *run);

NYB_NODISCARD nyb_status nyb_jinja_text(nyb_jinja_run *run, const char *at, size_t length,
                                        nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_list(nyb_jinja_run *run, size_t count, nyb_value_list **out);
NYB_NODISCARD nyb_status nyb_jinja_map_set(nyb_jinja_run *run, nyb_value_map *map, nyb_value key,
                                           nyb_value value);
NYB_NODISCARD nyb_status nyb_jinja_map_new(nyb_jinja_run *run, nyb_value_map **out);

static inline nyb_value nyb_value_none(void)
{
    return (nyb_value){.kind = NYB_VALUE_NONE};
}

static inline nyb_value nyb_value_undefined(void)
{
    return (nyb_value){.kind = NYB_VALUE_UNDEFINED};
}

static inline nyb_value nyb_value_bool(bool truth)
{
    return (nyb_value){.kind = NYB_VALUE_BOOL, .truth = truth};
}

static inline nyb_value nyb_value_integer(int64_t integer)
{
    return (nyb_value){.kind = NYB_VALUE_INTEGER, .integer = integer};
}

static inline nyb_value nyb_value_text(const char *at, size_t length)
{
    return (nyb_value){.kind = NYB_VALUE_TEXT, .text = {at, length}};
}

const char *nyb_value_name(const nyb_value *v); // of its kind, for errors
bool nyb_value_true(const nyb_value *v);
bool nyb_value_equal(const nyb_value *a, const nyb_value *b);
bool nyb_value_is(const nyb_value *v, const char *text);
const nyb_value *nyb_value_find(const nyb_value_map *map, const char *key, size_t length);

// What printing the value gives.
NYB_NODISCARD nyb_status nyb_value_print(nyb_jinja_run *run, const nyb_value *v, nyb_bytes *out);

// The members of a list, the keys of a map, the characters of a text; none of an undefined value.
NYB_NODISCARD nyb_status nyb_value_members(nyb_jinja_run *run, const nyb_value *v,
                                           const nyb_value_list **out);

NYB_NODISCARD nyb_status nyb_value_of_json(nyb_jinja_run *run, const json_t *json, nyb_value *out);

// Arguments of a call, in order; names are NULL for those given by place.
typedef struct nyb_jinja_arguments {
    nyb_value at[8];
    const char *names[8];
    size_t count;
} nyb_jinja_arguments;

// The argument at this place or of this name, or NULL.
const nyb_value *nyb_jinja_argument(const nyb_jinja_arguments *a, size_t place, const char *name);

// NYB_E_FORMAT unless the value is of this kind. `name` is what needs it.
NYB_NODISCARD nyb_status nyb_jinja_want(nyb_jinja_run *run, const char *name, const nyb_value *v,
                                        nyb_value_kind kind);

// Takes a text that was put together, and clears it.
NYB_NODISCARD nyb_status nyb_jinja_keep(nyb_jinja_run *run, nyb_bytes *text, nyb_value *out);

// What filters and methods do to texts.
typedef enum nyb_jinja_case_kind {
    JINJA_LOWER,
    JINJA_UPPER,
    JINJA_CAPITALIZED,
    JINJA_TITLE
} nyb_jinja_case_kind;
nyb_value nyb_jinja_strip(nyb_value v, const nyb_value *chars, bool left, bool right);
bool nyb_jinja_has_end(nyb_value v, const nyb_value *end, bool front);
NYB_NODISCARD nyb_status nyb_jinja_case(nyb_jinja_run *run, const char *name, nyb_value v,
                                        nyb_jinja_case_kind how, nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_replace(nyb_jinja_run *run, nyb_value v,
                                           const nyb_jinja_arguments *a, nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_split(nyb_jinja_run *run, nyb_value v,
                                         const nyb_jinja_arguments *a, nyb_value *out);

NYB_NODISCARD nyb_status nyb_jinja_binary(nyb_jinja_run *run, const char *name, const nyb_value *a,
                                          const nyb_value *b, nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_slice(nyb_jinja_run *run, const nyb_value *v,
                                         const nyb_value bounds[3], nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_item(nyb_jinja_run *run, const nyb_value *v,
                                        const nyb_value *key, nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_filter(nyb_jinja_run *run, const char *name, nyb_value v,
                                          const nyb_jinja_arguments *arguments, nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_test(nyb_jinja_run *run, const char *name, const nyb_value *v,
                                        const nyb_jinja_arguments *arguments, bool *out);
NYB_NODISCARD nyb_status nyb_jinja_method(nyb_jinja_run *run, const char *name, nyb_value v,
                                          const nyb_jinja_arguments *arguments, nyb_value *out);
NYB_NODISCARD nyb_status nyb_jinja_function(nyb_jinja_run *run, const char *name,
                                            const nyb_jinja_arguments *arguments, nyb_value *out);

#endif // NYB_MODEL_JINJA_PRIVATE_H_
