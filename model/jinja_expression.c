// Expressions of the template language, by recursive descent in Jinja's order of precedence.
#include <string.h>

#include "model/jinja_private.h"

enum { DEEPEST = 100 };

void nyb_jinja_fault(nyb_jinja_parser *p, nyb_status status, const char *what, const char *name)
{
    if (p->status == NYB_OK)
        p->status = nyb_fail(p->err, status, "line %u of the template: %s '%.60s'", p->at->line,
                             what, name);
}

nyb_jinja_node *nyb_jinja_node_new(nyb_jinja_parser *p, nyb_jinja_kind kind)
{
    nyb_jinja_node *const node =
        p->status == NYB_OK ? nyb_arena_alloc(p->arena, 1, sizeof(*node)) : NULL;
    if (node) {
        node->kind = kind;
        node->line = p->at->line;
        return node;
    }
    if (p->status == NYB_OK)
        p->status = nyb_no_memory(p->err, "a template", 1, sizeof(*node));
    return &p->none;
}

bool nyb_jinja_is(const nyb_jinja_parser *p, nyb_jinja_token_kind kind, const char *text)
{
    return p->status == NYB_OK && p->at->kind == kind &&
           (!text || (p->at->text && strcmp(p->at->text, text) == 0));
}

bool nyb_jinja_take(nyb_jinja_parser *p, nyb_jinja_token_kind kind, const char *text)
{
    if (!nyb_jinja_is(p, kind, text))
        return false;
    p->at++;
    return true;
}

static const char *shown(const nyb_jinja_token *token)
{
    switch (token->kind) {
    case JINJA_END:
        return "the end";
    case JINJA_DATA:
        return "text";
    case JINJA_OUTPUT:
        return "{{";
    case JINJA_BLOCK:
        return "{%";
    default:
        return token->text;
    }
}

void nyb_jinja_need(nyb_jinja_parser *p, nyb_jinja_token_kind kind, const char *text)
{
    if (p->status != NYB_OK || nyb_jinja_take(p, kind, text))
        return;
    p->status = nyb_fail(p->err, NYB_E_FORMAT, "line %u of the template: found '%.60s', want %s",
                         p->at->line, shown(p->at), text ? text : "a name");
}

static bool takes(nyb_jinja_parser *p, const char *text)
{
    return nyb_jinja_take(p, JINJA_OPERATOR, text);
}

static nyb_jinja_node *unary(nyb_jinja_parser *p, bool with_filter);
static nyb_jinja_node *postfix(nyb_jinja_parser *p, nyb_jinja_node *of);

static void append(nyb_jinja_node ***end, nyb_jinja_node *node)
{
    **end = node;
    *end = &node->next;
}

// Arguments behind "(", up to and with ")".
static nyb_jinja_node *arguments(nyb_jinja_parser *p)
{
    nyb_jinja_node *first = NULL, **end = &first;
    while (p->status == NYB_OK && !takes(p, ")")) {
        if (nyb_jinja_is(p, JINJA_OPERATOR, "*") || nyb_jinja_is(p, JINJA_OPERATOR, "**"))
            nyb_jinja_fault(p, NYB_E_UNSUPPORTED, "not supported: an argument with", p->at->text);
        if (nyb_jinja_is(p, JINJA_NAME, NULL) && p->at[1].kind == JINJA_OPERATOR &&
            strcmp(p->at[1].text, "=") == 0) {
            nyb_jinja_node *const named = nyb_jinja_node_new(p, JINJA_NAMED);
            named->text = p->at->text;
            p->at += 2;
            named->a = nyb_jinja_expression(p, true);
            append(&end, named);
        } else {
            // A node of its own, since an expression's `next` may be in use.
            nyb_jinja_node *const plain = nyb_jinja_node_new(p, JINJA_NAMED);
            plain->a = nyb_jinja_expression(p, true);
            append(&end, plain);
        }
        if (!nyb_jinja_is(p, JINJA_OPERATOR, ")"))
            nyb_jinja_need(p, JINJA_OPERATOR, ",");
    }
    return first;
}

nyb_jinja_node *nyb_jinja_parameters(nyb_jinja_parser *p)
{
    nyb_jinja_node *first = NULL, **end = &first;
    nyb_jinja_need(p, JINJA_OPERATOR, "(");
    while (p->status == NYB_OK && !takes(p, ")")) {
        nyb_jinja_node *const one = nyb_jinja_node_new(p, JINJA_NAMED);
        one->text = p->at->text;
        nyb_jinja_need(p, JINJA_NAME, NULL);
        if (takes(p, "="))
            one->a = nyb_jinja_expression(p, true);
        append(&end, one);
        if (!nyb_jinja_is(p, JINJA_OPERATOR, ")"))
            nyb_jinja_need(p, JINJA_OPERATOR, ",");
    }
    return first;
}

// A list's members up to `close`, each in a node of its own.
static nyb_jinja_node *members(nyb_jinja_parser *p, const char *close, bool pairs)
{
    nyb_jinja_node *first = NULL, **end = &first;
    while (p->status == NYB_OK && !takes(p, close)) {
        nyb_jinja_node *const one = nyb_jinja_node_new(p, JINJA_NAMED);
        one->a = nyb_jinja_expression(p, true);
        if (pairs) {
            nyb_jinja_need(p, JINJA_OPERATOR, ":");
            one->b = nyb_jinja_expression(p, true);
        }
        append(&end, one);
        if (!nyb_jinja_is(p, JINJA_OPERATOR, close))
            nyb_jinja_need(p, JINJA_OPERATOR, ",");
    }
    return first;
}

static nyb_jinja_node *literal(nyb_jinja_parser *p, nyb_value value)
{
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_LITERAL);
    if (p->status == NYB_OK)
        node->literal = value;
    return node;
}

static nyb_jinja_node *name(nyb_jinja_parser *p)
{
    static const char *const constants[] = {"true", "True", "false", "False", "none", "None"};
    static const char *const words[] = {"and", "or", "if", "else", "elif", "in", "is", "not"};
    const char *const text = p->at->text;
    for (size_t i = 0; i < 6; i++) {
        if (strcmp(text, constants[i]) == 0) {
            p->at++;
            return literal(p, i < 4 ? nyb_value_bool(i < 2) : nyb_value_none());
        }
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text, words[i]) == 0)
            nyb_jinja_fault(p, NYB_E_FORMAT, "no expression can begin with", text);
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_VARIABLE);
    node->text = text;
    p->at++;
    return node;
}

// Strings side by side are one.
static nyb_jinja_node *string(nyb_jinja_parser *p)
{
    nyb_value whole = nyb_value_text(p->at->text, p->at->length);
    p->at++;
    while (nyb_jinja_is(p, JINJA_TEXT, NULL)) {
        const size_t length = whole.text.length + p->at->length;
        char *const joined = nyb_arena_alloc(p->arena, length + 1, 1);
        if (!joined) {
            p->status = nyb_no_memory(p->err, "a string", length, 1);
            break;
        }
        memcpy(joined, whole.text.at, whole.text.length);
        memcpy(joined + whole.text.length, p->at->text, p->at->length);
        whole = nyb_value_text(joined, length);
        p->at++;
    }
    return literal(p, whole);
}

static nyb_jinja_node *primary(nyb_jinja_parser *p)
{
    const nyb_jinja_token *const token = p->at;
    nyb_jinja_node *node = NULL;
    if (p->status != NYB_OK)
        return nyb_jinja_node_new(p, JINJA_NOTHING);
    switch (token->kind) {
    case JINJA_NAME:
        return name(p);
    case JINJA_TEXT:
        return string(p);
    case JINJA_INTEGER:
        p->at++;
        return literal(p, nyb_value_integer(token->integer));
    case JINJA_REAL:
        p->at++;
        return literal(p, (nyb_value){.kind = NYB_VALUE_REAL, .real = token->real});
    default:
        break;
    }
    if (takes(p, "(")) {
        node = nyb_jinja_expression(p, true);
        if (nyb_jinja_is(p, JINJA_OPERATOR, ","))
            nyb_jinja_fault(p, NYB_E_UNSUPPORTED, "not supported: a tuple, found", ",");
        nyb_jinja_need(p, JINJA_OPERATOR, ")");
        return node;
    }
    if (takes(p, "[") || takes(p, "{")) {
        const bool map = *p->at[-1].text == '{';
        node = nyb_jinja_node_new(p, map ? JINJA_MAP : JINJA_LIST);
        node->list = members(p, map ? "}" : "]", map);
        return node;
    }
    nyb_jinja_fault(p, NYB_E_FORMAT, "no expression can begin with", shown(token));
    return nyb_jinja_node_new(p, JINJA_NOTHING);
}

// Behind "[": an index, or a slice.
static nyb_jinja_node *subscript(nyb_jinja_parser *p, nyb_jinja_node *of)
{
    nyb_jinja_node *parts[3] = {NULL, NULL, NULL};
    size_t count = 0;
    bool slice = false;
    while (p->status == NYB_OK && !takes(p, "]")) {
        if (takes(p, ":")) {
            slice = true;
            count++;
            if (count > 2)
                nyb_jinja_fault(p, NYB_E_FORMAT, "a slice has too many", ":");
        } else if (parts[count < 3 ? count : 0] || count > 2) {
            nyb_jinja_fault(p, NYB_E_FORMAT, "not the end of a subscript:", shown(p->at));
        } else {
            parts[count] = nyb_jinja_expression(p, true);
        }
    }
    nyb_jinja_node *const node = nyb_jinja_node_new(p, slice ? JINJA_SLICE : JINJA_ITEM);
    node->a = of;
    node->b = parts[0];
    if (!slice) {
        if (!parts[0])
            nyb_jinja_fault(p, NYB_E_FORMAT, "a subscript is empty before", shown(p->at));
        return node;
    }
    nyb_jinja_node **end = &node->list;
    for (size_t i = 0; i < 3; i++) {
        nyb_jinja_node *const one = nyb_jinja_node_new(p, parts[i] ? JINJA_NAMED : JINJA_NOTHING);
        one->a = parts[i];
        append(&end, one);
    }
    return node;
}

static nyb_jinja_node *postfix(nyb_jinja_parser *p, nyb_jinja_node *of)
{
    for (unsigned links = 0; p->status == NYB_OK; links++) {
        nyb_jinja_node *node = NULL;
        if (links > DEEPEST) {
            nyb_jinja_fault(p, NYB_E_FORMAT, "too many members behind each other at", shown(p->at));
        } else if (takes(p, ".")) {
            node = nyb_jinja_node_new(p, JINJA_MEMBER);
            node->text = p->at->text;
            node->length = p->at->length;
            node->a = of;
            nyb_jinja_need(p, JINJA_NAME, NULL);
        } else if (takes(p, "[")) {
            node = subscript(p, of);
        } else if (takes(p, "(")) {
            node = nyb_jinja_node_new(p, JINJA_CALL);
            node->a = of;
            node->list = arguments(p);
        } else {
            return of;
        }
        of = node;
    }
    return of;
}

// The one argument that a test may have without parentheses.
static bool begins_argument(const nyb_jinja_parser *p)
{
    if (nyb_jinja_is(p, JINJA_NAME, NULL))
        return strcmp(p->at->text, "else") != 0 && strcmp(p->at->text, "or") != 0 &&
               strcmp(p->at->text, "and") != 0 && strcmp(p->at->text, "is") != 0 &&
               strcmp(p->at->text, "if") != 0 && strcmp(p->at->text, "in") != 0;
    return nyb_jinja_is(p, JINJA_TEXT, NULL) || nyb_jinja_is(p, JINJA_INTEGER, NULL) ||
           nyb_jinja_is(p, JINJA_REAL, NULL) || nyb_jinja_is(p, JINJA_OPERATOR, "[") ||
           nyb_jinja_is(p, JINJA_OPERATOR, "{");
}

static nyb_jinja_node *test(nyb_jinja_parser *p, nyb_jinja_node *of)
{
    const bool negated = nyb_jinja_take(p, JINJA_NAME, "not");
    nyb_jinja_node *node = nyb_jinja_node_new(p, JINJA_TEST);
    node->a = of;
    node->text = p->at->text;
    nyb_jinja_need(p, JINJA_NAME, NULL);
    if (takes(p, "(")) {
        node->list = arguments(p);
    } else if (begins_argument(p)) {
        node->list = nyb_jinja_node_new(p, JINJA_NAMED);
        if (p->status == NYB_OK)
            node->list->a = postfix(p, primary(p));
    }
    if (negated) {
        nyb_jinja_node *const no = nyb_jinja_node_new(p, JINJA_NOT);
        no->a = node;
        node = no;
    }
    return node;
}

static nyb_jinja_node *filters(nyb_jinja_parser *p, nyb_jinja_node *of)
{
    for (unsigned links = 0; p->status == NYB_OK; links++) {
        if (links > DEEPEST) {
            nyb_jinja_fault(p, NYB_E_FORMAT, "too many filters behind each other at", shown(p->at));
        } else if (takes(p, "|")) {
            nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_FILTER);
            node->text = p->at->text;
            node->a = of;
            nyb_jinja_need(p, JINJA_NAME, NULL);
            if (takes(p, "("))
                node->list = arguments(p);
            of = node;
        } else if (nyb_jinja_take(p, JINJA_NAME, "is")) {
            of = test(p, of);
        } else {
            return of;
        }
    }
    return of;
}

static nyb_jinja_node *unary(nyb_jinja_parser *p, bool with_filter)
{
    nyb_jinja_node *node = NULL;
    if (++p->depth > DEEPEST)
        nyb_jinja_fault(p, NYB_E_FORMAT, "expressions are too deep at", shown(p->at));
    if (takes(p, "-")) {
        node = nyb_jinja_node_new(p, JINJA_NEGATIVE);
        nyb_jinja_node *const inner = unary(p, false);
        if (p->status == NYB_OK)
            node->a = inner;
    } else if (takes(p, "+")) {
        node = unary(p, false);
    } else {
        node = postfix(p, primary(p));
    }
    if (with_filter)
        node = filters(p, node);
    p->depth--;
    return node;
}

// Operators of each rank, the tightest last.
static const char *const ranks[][5] = {
    {"+", "-"},
    {"~"},
    {"*", "/", "//", "%"},
    {"**"},
};
enum { RANKS = sizeof(ranks) / sizeof(ranks[0]) };

static nyb_jinja_node *binary(nyb_jinja_parser *p, const char *text, nyb_jinja_node *a,
                              nyb_jinja_node *b)
{
    nyb_jinja_node *const node = nyb_jinja_node_new(p, JINJA_BINARY);
    node->text = text;
    node->a = a;
    node->b = b;
    return node;
}

static const char *operator_at(nyb_jinja_parser *p, size_t rank)
{
    for (size_t i = 0; ranks[rank][i]; i++)
        if (takes(p, ranks[rank][i]))
            return ranks[rank][i];
    return NULL;
}

static nyb_jinja_node *ranked(nyb_jinja_parser *p, size_t rank)
{
    if (rank == RANKS)
        return unary(p, true);
    nyb_jinja_node *node = ranked(p, rank + 1);
    unsigned links = 0;
    for (const char *text = operator_at(p, rank); text; text = operator_at(p, rank)) {
        if (++links > DEEPEST)
            nyb_jinja_fault(p, NYB_E_FORMAT, "too many operators behind each other at", text);
        node = binary(p, text, node, ranked(p, rank + 1));
    }
    return node;
}

static nyb_jinja_node *pair(nyb_jinja_parser *p, nyb_jinja_kind kind, nyb_jinja_node *a,
                            nyb_jinja_node *b)
{
    nyb_jinja_node *const node = nyb_jinja_node_new(p, kind);
    node->a = a;
    node->b = b;
    return node;
}

// a < b < c is a < b and b < c.
static nyb_jinja_node *comparison(nyb_jinja_parser *p)
{
    static const char *const texts[] = {"==", "!=", "<=", ">=", "<", ">"};
    nyb_jinja_node *left = ranked(p, 0), *whole = NULL;
    for (unsigned links = 0; p->status == NYB_OK && links < DEEPEST; links++) {
        const char *text = NULL;
        for (size_t i = 0; i < 6 && !text; i++)
            text = takes(p, texts[i]) ? texts[i] : NULL;
        const bool not_in = !text && nyb_jinja_is(p, JINJA_NAME, "not") &&
                            p->at[1].kind == JINJA_NAME && strcmp(p->at[1].text, "in") == 0;
        if (not_in)
            p->at++;
        if (!text && nyb_jinja_take(p, JINJA_NAME, "in"))
            text = "in";
        if (!text)
            break;
        nyb_jinja_node *const right = ranked(p, 0);
        nyb_jinja_node *node = binary(p, text, left, right);
        if (not_in)
            node = pair(p, JINJA_NOT, node, NULL);
        whole = whole ? pair(p, JINJA_AND, whole, node) : node;
        left = right;
    }
    return whole ? whole : left;
}

static nyb_jinja_node *negation(nyb_jinja_parser *p)
{
    bool negated = false, any = false;
    while (nyb_jinja_take(p, JINJA_NAME, "not")) {
        negated = !negated;
        any = true;
    }
    nyb_jinja_node *const node = comparison(p);
    if (!any)
        return node;
    nyb_jinja_node *const no = pair(p, JINJA_NOT, node, NULL);
    return negated ? no : pair(p, JINJA_NOT, no, NULL);
}

static nyb_jinja_node *conjunction(nyb_jinja_parser *p)
{
    nyb_jinja_node *node = negation(p);
    for (unsigned links = 0; links < DEEPEST && nyb_jinja_take(p, JINJA_NAME, "and"); links++)
        node = pair(p, JINJA_AND, node, negation(p));
    return node;
}

static nyb_jinja_node *disjunction(nyb_jinja_parser *p)
{
    nyb_jinja_node *node = conjunction(p);
    for (unsigned links = 0; links < DEEPEST && nyb_jinja_take(p, JINJA_NAME, "or"); links++)
        node = pair(p, JINJA_OR, node, conjunction(p));
    return node;
}

nyb_jinja_node *nyb_jinja_expression(nyb_jinja_parser *p, bool with_choice)
{
    if (++p->depth > DEEPEST)
        nyb_jinja_fault(p, NYB_E_FORMAT, "expressions are too deep at", shown(p->at));
    nyb_jinja_node *node = disjunction(p);
    for (unsigned links = 0; with_choice && links < DEEPEST && nyb_jinja_take(p, JINJA_NAME, "if");
         links++) {
        nyb_jinja_node *const choice = pair(p, JINJA_CHOICE, node, disjunction(p));
        if (nyb_jinja_take(p, JINJA_NAME, "else")) {
            nyb_jinja_node *const other = nyb_jinja_expression(p, true);
            if (p->status == NYB_OK)
                choice->other = other;
        }
        node = choice;
    }
    p->depth--;
    return node;
}
