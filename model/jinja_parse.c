// Statements of the template language.
#include <string.h>

#include "model/jinja_private.h"

enum { DEEPEST = 100 };

static nyb_jinja_node *statements(nyb_jinja_parser *p, const char *const *ends);

static const char *taken_name(nyb_jinja_parser *p)
{
    const char *const text = p->at->text;
    nyb_jinja_need(p, JINJA_NAME, NULL);
    return text;
}

static void end_block(nyb_jinja_parser *p)
{
    nyb_jinja_need(p, JINJA_BLOCK_END, "%}");
}

// Whether the next tag is this block, whose name it takes.
static bool takes_block(nyb_jinja_parser *p, const char *name)
{
    if (!nyb_jinja_is(p, JINJA_BLOCK, NULL) || p->at[1].kind != JINJA_NAME ||
        strcmp(p->at[1].text, name) != 0)
        return false;
    p->at += 2;
    return true;
}

static void close_block(nyb_jinja_parser *p, const char *name)
{
    if (p->status == NYB_OK && !takes_block(p, name))
        nyb_jinja_fault(p, NYB_E_FORMAT, "a block lacks its", name);
    end_block(p);
}

static nyb_jinja_node *parse_if(nyb_jinja_parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    nyb_jinja_node *const first = nyb_jinja_node_new(p, JINJA_IF);
    nyb_jinja_node *node = first;
    node->a = nyb_jinja_expression(p, true);
    end_block(p);
    node->body = statements(p, ends);
    while (p->status == NYB_OK && takes_block(p, "elif")) {
        nyb_jinja_node *const more = nyb_jinja_node_new(p, JINJA_IF);
        nyb_jinja_node *const condition = nyb_jinja_expression(p, true);
        end_block(p);
        nyb_jinja_node *const body = statements(p, ends);
        if (p->status != NYB_OK)
            break;
        more->a = condition;
        more->body = body;
        node->other = more;
        node->other_is_elif = true;
        node = more;
    }
    if (p->status == NYB_OK && takes_block(p, "else")) {
        end_block(p);
        nyb_jinja_node *const other = statements(p, ends + 2);
        if (p->status == NYB_OK)
            node->other = other;
    }
    close_block(p, "endif");
    return first;
}

// One or more names parted by commas, in parentheses or not.
static nyb_jinja_node *names(nyb_jinja_parser *p)
{
    nyb_jinja_node *first = NULL, **end = &first;
    const bool inside = nyb_jinja_take(p, JINJA_OPERATOR, "(");
    do {
        nyb_jinja_node *const one = nyb_jinja_node_new(p, JINJA_NAMED);
        one->text = taken_name(p);
        *end = one;
        end = &one->next;
    } while (p->status == NYB_OK && nyb_jinja_take(p, JINJA_OPERATOR, ","));
    if (inside)
        nyb_jinja_need(p, JINJA_OPERATOR, ")");
    return first;
}

static nyb_jinja_node *parse_for(nyb_jinja_parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_FOR);
    node->list = names(p);
    nyb_jinja_need(p, JINJA_NAME, "in");
    node->a = nyb_jinja_expression(p, false);
    if (nyb_jinja_take(p, JINJA_NAME, "if"))
        node->b = nyb_jinja_expression(p, true);
    if (nyb_jinja_is(p, JINJA_NAME, "recursive"))
        nyb_jinja_fault(p, NYB_E_UNSUPPORTED, "not supported: a loop that is", "recursive");
    end_block(p);
    node->body = statements(p, ends);
    if (p->status == NYB_OK && takes_block(p, "else")) {
        end_block(p);
        node->other = statements(p, ends + 1);
    }
    close_block(p, "endfor");
    return node;
}

static nyb_jinja_node *parse_set(nyb_jinja_parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_SET);
    node->list = names(p);
    if (p->status != NYB_OK)
        return node;
    if (nyb_jinja_take(p, JINJA_OPERATOR, ".")) {
        node->kind = JINJA_SET_MEMBER;
        node->text = node->list->text;
        node->list->text = taken_name(p);
    }
    if (nyb_jinja_take(p, JINJA_OPERATOR, "=")) {
        node->a = nyb_jinja_expression(p, true);
        if (nyb_jinja_is(p, JINJA_OPERATOR, ","))
            nyb_jinja_fault(p, NYB_E_UNSUPPORTED, "not supported: a tuple, found", ",");
        end_block(p);
        return node;
    }
    if (nyb_jinja_is(p, JINJA_OPERATOR, "|"))
        nyb_jinja_fault(p, NYB_E_UNSUPPORTED, "not supported: a set block with a filter, found",
                        "|");
    if (node->kind != JINJA_SET || (node->list && node->list->next))
        nyb_jinja_need(p, JINJA_OPERATOR, "=");
    node->kind = JINJA_CAPTURE;
    node->text = node->list->text;
    end_block(p);
    node->body = statements(p, ends);
    close_block(p, "endset");
    return node;
}

static nyb_jinja_node *parse_macro(nyb_jinja_parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_MACRO);
    node->text = taken_name(p);
    node->list = nyb_jinja_parameters(p);
    end_block(p);
    node->body = statements(p, ends);
    close_block(p, "endmacro");
    return node;
}

static nyb_jinja_node *parse_generation(nyb_jinja_parser *p)
{
    static const char *const ends[] = {"endgeneration", NULL};
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_GENERATION);
    end_block(p);
    node->body = statements(p, ends);
    close_block(p, "endgeneration");
    return node;
}

static nyb_jinja_node *parse_break(nyb_jinja_parser *p)
{
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_BREAK);
    end_block(p);
    return node;
}

static nyb_jinja_node *parse_continue(nyb_jinja_parser *p)
{
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_CONTINUE);
    end_block(p);
    return node;
}

static const struct {
    const char *name;
    nyb_jinja_node *(*parse)(nyb_jinja_parser *p);
} blocks[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"break", parse_break},
    {"continue", parse_continue},
    {"generation", parse_generation},
};

static nyb_jinja_node *parse_block(nyb_jinja_parser *p)
{
    const char *const name = p->at->text;
    if (p->at->kind != JINJA_NAME) {
        nyb_jinja_fault(p, NYB_E_FORMAT, "no statement begins with", name ? name : "");
        return nyb_jinja_node_new(p, JINJA_NOTHING);
    }
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        if (strcmp(blocks[i].name, name) == 0) {
            p->at++;
            return blocks[i].parse(p);
        }
    }
    nyb_jinja_fault(p, NYB_E_UNSUPPORTED, "not supported: the statement", name);
    return nyb_jinja_node_new(p, JINJA_NOTHING);
}

static bool at_end(const nyb_jinja_parser *p, const char *const *ends)
{
    if (p->at->kind == JINJA_END)
        return true;
    if (p->at->kind != JINJA_BLOCK || p->at[1].kind != JINJA_NAME)
        return false;
    for (; *ends; ends++)
        if (strcmp(p->at[1].text, *ends) == 0)
            return true;
    return false;
}

static nyb_jinja_node *statement(nyb_jinja_parser *p)
{
    if (nyb_jinja_take(p, JINJA_BLOCK, NULL))
        return parse_block(p);
    if (nyb_jinja_take(p, JINJA_OUTPUT, NULL)) {
        nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_PRINT);
        node->a = nyb_jinja_expression(p, true);
        nyb_jinja_need(p, JINJA_OUTPUT_END, "}}");
        return node;
    }
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_WRITE);
    node->text = p->at->text;
    node->length = p->at->length;
    p->at++;
    return node;
}

// Up to a block of one of these names, or the template's end.
static nyb_jinja_node *statements(nyb_jinja_parser *p, const char *const *ends)
{
    nyb_jinja_node *first = NULL, **end = &first;
    if (++p->depth > DEEPEST)
        nyb_jinja_fault(p, NYB_E_FORMAT, "blocks are too deep in", "this template");
    while (p->status == NYB_OK && !at_end(p, ends)) {
        nyb_jinja_node *const node = statement(p);
        if (p->status != NYB_OK)
            break;
        *end = node;
        end = &node->next;
    }
    p->depth--;
    return first;
}

nyb_status nyb_jinja_parse(nyb_jinja *out, const nyb_jinja_tokens *tokens, nyb_err *err)
{
    static const char *const none[] = {NULL};
    nyb_jinja_parser p = {.arena = &out->arena, .at = tokens->at, .err = err};
    out->body = statements(&p, none);
    return p.status;
}

nyb_status nyb_jinja_open(nyb_jinja **out, const char *text, size_t length, nyb_err *err)
{
    nyb_jinja *const jinja = nyb_alloc(1, sizeof(*jinja));
    nyb_jinja_tokens tokens;
    *out = NULL;
    if (!jinja)
        return nyb_no_memory(err, "a template", 1, sizeof(*jinja));
    nyb_status status = nyb_jinja_scan(&tokens, &jinja->arena, text, length, err);
    if (status == NYB_OK)
        status = nyb_jinja_parse(jinja, &tokens, err);
    if (status == NYB_OK)
        *out = jinja;
    else
        nyb_jinja_close(jinja);
    return status;
}

void nyb_jinja_close(nyb_jinja *jinja)
{
    if (!jinja)
        return;
    nyb_arena_clear(&jinja->arena);
    nyb_free(jinja);
}
