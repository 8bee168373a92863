// Runs the statements of a template and works out its expressions.
#include <string.h>

#include "model/jinja_private.h"

enum {
    STEPS = 2000000,   // statements and expressions of one rendering
    BYTES = 128 << 20, // of all texts, lists and maps that it makes
    DEEPEST = 250,     // expressions and blocks within each other, macros included
};

// Names of a block. A loop's or a macro's own ones hide those outside of it.
struct nyb_jinja_scope {
    nyb_value_map names;
    nyb_jinja_scope *outer;
};

static nyb_status value_of(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                           nyb_value *out);
static nyb_status run_all(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                          nyb_bytes *out);

static nyb_value look_up(const nyb_jinja_scope *scope, const char *name)
{
    const size_t length = strlen(name);
    for (; scope; scope = scope->outer) {
        const nyb_value *const found = nyb_value_find(&scope->names, name, length);
        if (found)
            return *found;
    }
    return nyb_value_undefined();
}

static nyb_status assign(nyb_jinja_run *run, nyb_jinja_scope *scope, const char *name,
                         nyb_value value)
{
    return nyb_jinja_map_set(run, &scope->names, nyb_value_text(name, strlen(name)), value);
}

// ---- Expressions --------------------------------------------------------------------------

static nyb_status read_arguments(nyb_jinja_run *run, const nyb_jinja_node *list,
                                 nyb_jinja_scope *scope, nyb_jinja_arguments *out)
{
    out->count = 0;
    for (; list; list = list->next) {
        if (out->count == sizeof(out->at) / sizeof(out->at[0]))
            return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                            "more than %zu arguments are not supported", out->count);
        out->names[out->count] = list->text;
        const nyb_status status = value_of(run, list->a, scope, &out->at[out->count++]);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status member_of(nyb_jinja_run *run, const nyb_value *of, const char *name,
                            size_t length, nyb_value *out)
{
    *out = nyb_value_undefined();
    if (of->kind == NYB_VALUE_UNDEFINED)
        return nyb_fail(run->err, NYB_E_FORMAT, "'%.60s' is asked of an undefined value", name);
    if (of->kind == NYB_VALUE_MAP) {
        const nyb_value *const found = nyb_value_find(of->map, name, length);
        if (found)
            *out = *found;
    }
    return NYB_OK;
}

// The text of a macro's body with these arguments.
static nyb_status call_macro(nyb_jinja_run *run, const nyb_jinja_node *macro,
                             const nyb_jinja_arguments *arguments, nyb_value *out)
{
    nyb_jinja_scope inner = {.outer = run->root};
    nyb_bytes text = {0};
    nyb_status status = NYB_OK;
    size_t place = 0;
    for (const nyb_jinja_node *p = macro->list; p && status == NYB_OK; p = p->next, place++) {
        nyb_value value = nyb_value_undefined();
        bool given = false;
        for (size_t i = 0; i < arguments->count; i++) {
            const char *const name = arguments->names[i];
            if (name ? strcmp(name, p->text) == 0 : i == place) {
                value = arguments->at[i];
                given = true;
            }
        }
        if (!given && p->a)
            status = value_of(run, p->a, &inner, &value);
        if (status == NYB_OK)
            status = assign(run, &inner, p->text, value);
    }
    nyb_ranges *const generated = run->generated;
    run->generated = NULL; // places in another text
    if (status == NYB_OK)
        status = run_all(run, macro->body, &inner, &text);
    run->generated = generated;
    run->flow = JINJA_GO_ON;
    if (status == NYB_OK)
        status = nyb_bytes_status(&text, run->err);
    if (status == NYB_OK)
        status = nyb_jinja_text(run, text.at, text.count, out);
    nyb_bytes_clear(&text);
    return status;
}

static nyb_status value_of_call(nyb_jinja_run *run, const nyb_jinja_node *node,
                                nyb_jinja_scope *scope, nyb_value *out)
{
    const nyb_jinja_node *const callee = node->a;
    nyb_jinja_arguments arguments;
    nyb_value of = nyb_value_undefined();
    nyb_status status = read_arguments(run, node->list, scope, &arguments);
    if (status != NYB_OK)
        return status;
    if (callee->kind == JINJA_MEMBER) {
        status = value_of(run, callee->a, scope, &of);
        return status == NYB_OK ? nyb_jinja_method(run, callee->text, of, &arguments, out) : status;
    }
    if (callee->kind != JINJA_VARIABLE)
        return nyb_fail(run->err, NYB_E_UNSUPPORTED,
                        "line %u of the template: calling what is no name is not supported",
                        node->line);
    of = look_up(scope, callee->text);
    if (of.kind == NYB_VALUE_MACRO)
        return call_macro(run, of.macro, &arguments, out);
    if (of.kind != NYB_VALUE_UNDEFINED)
        return nyb_fail(run->err, NYB_E_FORMAT, "'%.60s' is %s and cannot be called", callee->text,
                        nyb_value_name(&of));
    return nyb_jinja_function(run, callee->text, &arguments, out);
}

static nyb_status value_of_list(nyb_jinja_run *run, const nyb_jinja_node *node,
                                nyb_jinja_scope *scope, nyb_value *out)
{
    size_t count = 0;
    for (const nyb_jinja_node *m = node->list; m; m = m->next)
        count++;
    nyb_value_list *list = NULL;
    nyb_status status = nyb_jinja_list(run, count, &list);
    size_t i = 0;
    for (const nyb_jinja_node *m = node->list; m && status == NYB_OK; m = m->next)
        status = value_of(run, m->a, scope, &list->at[i++]);
    *out = (nyb_value){.kind = NYB_VALUE_LIST, .list = list};
    return status;
}

static nyb_status value_of_map(nyb_jinja_run *run, const nyb_jinja_node *node,
                               nyb_jinja_scope *scope, nyb_value *out)
{
    nyb_value_map *map = NULL;
    nyb_status status = nyb_jinja_map_new(run, &map);
    for (const nyb_jinja_node *m = node->list; m && status == NYB_OK; m = m->next) {
        nyb_value key = nyb_value_undefined(), value = nyb_value_undefined();
        status = value_of(run, m->a, scope, &key);
        if (status == NYB_OK)
            status = value_of(run, m->b, scope, &value);
        if (status == NYB_OK)
            status = nyb_jinja_map_set(run, map, key, value);
    }
    *out = (nyb_value){.kind = NYB_VALUE_MAP, .map = map};
    return status;
}

static nyb_status value_of_slice(nyb_jinja_run *run, const nyb_jinja_node *node,
                                 nyb_jinja_scope *scope, nyb_value *out)
{
    nyb_value of, bounds[3] = {nyb_value_none(), nyb_value_none(), nyb_value_none()};
    nyb_status status = value_of(run, node->a, scope, &of);
    size_t i = 0;
    for (const nyb_jinja_node *b = node->list; b && status == NYB_OK; b = b->next, i++)
        if (b->kind != JINJA_NOTHING)
            status = value_of(run, b->a, scope, &bounds[i]);
    return status == NYB_OK ? nyb_jinja_slice(run, &of, bounds, out) : status;
}

// Expressions of one or two values, which are worked out first.
static nyb_status value_of_pair(nyb_jinja_run *run, const nyb_jinja_node *node,
                                nyb_jinja_scope *scope, nyb_value *out)
{
    const nyb_value zero = nyb_value_integer(0);
    nyb_value a, b = nyb_value_undefined();
    nyb_status status = value_of(run, node->a, scope, &a);
    if (status == NYB_OK && node->b)
        status = value_of(run, node->b, scope, &b);
    if (status != NYB_OK)
        return status;
    switch (node->kind) {
    case JINJA_NOT:
        *out = nyb_value_bool(!nyb_value_true(&a));
        return NYB_OK;
    case JINJA_NEGATIVE:
        return nyb_jinja_binary(run, "-", &zero, &a, out);
    case JINJA_MEMBER:
        return member_of(run, &a, node->text, node->length, out);
    case JINJA_ITEM:
        return nyb_jinja_item(run, &a, &b, out);
    default:
        return nyb_jinja_binary(run, node->text, &a, &b, out);
    }
}

// Filters and tests.
static nyb_status value_of_applied(nyb_jinja_run *run, const nyb_jinja_node *node,
                                   nyb_jinja_scope *scope, nyb_value *out)
{
    nyb_jinja_arguments arguments;
    nyb_value of;
    bool truth = false;
    nyb_status status = value_of(run, node->a, scope, &of);
    if (status == NYB_OK)
        status = read_arguments(run, node->list, scope, &arguments);
    if (status != NYB_OK)
        return status;
    if (node->kind == JINJA_FILTER)
        return nyb_jinja_filter(run, node->text, of, &arguments, out);
    // Functions that templates ask for before they call them.
    if (node->a->kind == JINJA_VARIABLE && strcmp(node->text, "defined") == 0 &&
        (strcmp(node->a->text, "strftime_now") == 0 ||
         strcmp(node->a->text, "raise_exception") == 0)) {
        *out = nyb_value_bool(true);
        return NYB_OK;
    }
    status = nyb_jinja_test(run, node->text, &of, &arguments, &truth);
    *out = nyb_value_bool(truth);
    return status;
}

// and, or, if: the last operand may not be worked out.
static nyb_status value_of_choice(nyb_jinja_run *run, const nyb_jinja_node *node,
                                  nyb_jinja_scope *scope, nyb_value *out)
{
    if (node->kind == JINJA_CHOICE) {
        nyb_value condition;
        const nyb_status status = value_of(run, node->b, scope, &condition);
        const nyb_jinja_node *const chosen =
            status == NYB_OK && nyb_value_true(&condition) ? node->a : node->other;
        *out = nyb_value_undefined();
        return status == NYB_OK && chosen ? value_of(run, chosen, scope, out) : status;
    }
    const nyb_status status = value_of(run, node->a, scope, out);
    if (status != NYB_OK || nyb_value_true(out) == (node->kind == JINJA_OR))
        return status;
    return value_of(run, node->b, scope, out);
}

static nyb_status value_of_any(nyb_jinja_run *run, const nyb_jinja_node *node,
                               nyb_jinja_scope *scope, nyb_value *out)
{
    switch (node->kind) {
    case JINJA_LITERAL:
        *out = node->literal;
        return NYB_OK;
    case JINJA_VARIABLE:
        *out = look_up(scope, node->text);
        return NYB_OK;
    case JINJA_LIST:
        return value_of_list(run, node, scope, out);
    case JINJA_MAP:
        return value_of_map(run, node, scope, out);
    case JINJA_SLICE:
        return value_of_slice(run, node, scope, out);
    case JINJA_CALL:
        return value_of_call(run, node, scope, out);
    case JINJA_FILTER:
    case JINJA_TEST:
        return value_of_applied(run, node, scope, out);
    case JINJA_AND:
    case JINJA_OR:
    case JINJA_CHOICE:
        return value_of_choice(run, node, scope, out);
    default:
        return value_of_pair(run, node, scope, out);
    }
}

static nyb_status enter(nyb_jinja_run *run)
{
    if (run->steps == 0 || run->depth == DEEPEST)
        return nyb_jinja_too_much(run);
    run->steps--;
    run->depth++;
    return NYB_OK;
}

static nyb_status value_of(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                           nyb_value *out)
{
    *out = nyb_value_undefined();
    nyb_status status = enter(run);
    if (status != NYB_OK)
        return status;
    status = value_of_any(run, node, scope, out);
    run->depth--;
    return status;
}

// ---- Statements ---------------------------------------------------------------------------

static nyb_status set_loop(nyb_jinja_run *run, nyb_jinja_scope *scope, const nyb_value_list *items,
                           size_t i)
{
    const struct {
        const char *name;
        nyb_value value;
    } members[] = {
        {"index", nyb_value_integer((int64_t) i + 1)},
        {"index0", nyb_value_integer((int64_t) i)},
        {"revindex", nyb_value_integer((int64_t) (items->count - i))},
        {"revindex0", nyb_value_integer((int64_t) (items->count - i - 1))},
        {"first", nyb_value_bool(i == 0)},
        {"last", nyb_value_bool(i + 1 == items->count)},
        {"length", nyb_value_integer((int64_t) items->count)},
        {"previtem", i > 0 ? items->at[i - 1] : nyb_value_undefined()},
        {"nextitem", i + 1 < items->count ? items->at[i + 1] : nyb_value_undefined()},
    };
    nyb_value_map *map = NULL;
    nyb_status status = nyb_jinja_map_new(run, &map);
    for (size_t k = 0; k < sizeof(members) / sizeof(members[0]) && status == NYB_OK; k++)
        status = nyb_jinja_map_set(
            run, map, nyb_value_text(members[k].name, strlen(members[k].name)), members[k].value);
    if (status == NYB_OK)
        status = assign(run, scope, "loop", (nyb_value){.kind = NYB_VALUE_MAP, .map = map});
    return status;
}

// Gives a value to one name, or a list's members to several.
static nyb_status unpack(nyb_jinja_run *run, nyb_jinja_scope *scope, const nyb_jinja_node *names,
                         nyb_value value)
{
    if (!names->next)
        return assign(run, scope, names->text, value);
    size_t count = 0, i = 0;
    for (const nyb_jinja_node *n = names; n; n = n->next)
        count++;
    if (value.kind != NYB_VALUE_LIST || value.list->count != count)
        return nyb_fail(run->err, NYB_E_FORMAT, "%s cannot be given to %zu names",
                        nyb_value_name(&value), count);
    nyb_status status = NYB_OK;
    for (const nyb_jinja_node *n = names; n && status == NYB_OK; n = n->next)
        status = assign(run, scope, n->text, value.list->at[i++]);
    return status;
}

// The members that the loop goes through: those for which its condition holds.
static nyb_status loop_items(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                             const nyb_value_list **out)
{
    nyb_value of;
    nyb_value_list *kept = NULL;
    nyb_status status = value_of(run, node->a, scope, &of);
    if (status == NYB_OK)
        status = nyb_value_members(run, &of, out);
    if (status != NYB_OK || !node->b)
        return status;
    status = nyb_jinja_list(run, (*out)->count, &kept);
    if (status != NYB_OK)
        return status;
    kept->count = 0;
    for (size_t i = 0; i < (*out)->count && status == NYB_OK; i++) {
        nyb_jinja_scope inner = {.outer = scope};
        nyb_value condition = nyb_value_undefined();
        status = unpack(run, &inner, node->list, (*out)->at[i]);
        if (status == NYB_OK)
            status = value_of(run, node->b, &inner, &condition);
        if (nyb_value_true(&condition))
            kept->at[kept->count++] = (*out)->at[i];
    }
    *out = kept;
    return status;
}

static nyb_status run_for(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                          nyb_bytes *out)
{
    const nyb_value_list *items = NULL;
    nyb_status status = loop_items(run, node, scope, &items);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < items->count && status == NYB_OK && run->flow != JINJA_LEAVE_LOOP; i++) {
        nyb_jinja_scope inner = {.outer = scope};
        status = unpack(run, &inner, node->list, items->at[i]);
        if (status == NYB_OK)
            status = set_loop(run, &inner, items, i);
        if (status == NYB_OK)
            status = run_all(run, node->body, &inner, out);
        if (run->flow == JINJA_NEXT_ROUND)
            run->flow = JINJA_GO_ON;
    }
    run->flow = JINJA_GO_ON;
    if (status == NYB_OK && items->count == 0)
        status = run_all(run, node->other, scope, out);
    return status;
}

static nyb_status set_member(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope)
{
    const nyb_value of = look_up(scope, node->text);
    nyb_value value;
    if (of.kind != NYB_VALUE_MAP || !of.map->is_namespace)
        return nyb_fail(run->err, NYB_E_FORMAT, "'%.60s' is %s and no namespace", node->text,
                        nyb_value_name(&of));
    const nyb_status status = value_of(run, node->a, scope, &value);
    if (status != NYB_OK)
        return status;
    const char *const name = node->list->text;
    return nyb_jinja_map_set(run, of.map, nyb_value_text(name, strlen(name)), value);
}

static nyb_status capture(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope)
{
    nyb_bytes text = {0};
    nyb_value value;
    nyb_ranges *const generated = run->generated;
    run->generated = NULL;
    nyb_status status = run_all(run, node->body, scope, &text);
    run->generated = generated;
    if (status == NYB_OK)
        status = nyb_bytes_status(&text, run->err);
    if (status == NYB_OK)
        status = nyb_jinja_text(run, text.at, text.count, &value);
    nyb_bytes_clear(&text);
    return status == NYB_OK ? assign(run, scope, node->text, value) : status;
}

static nyb_status run_if(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                         nyb_bytes *out)
{
    while (node && node->kind == JINJA_IF) {
        nyb_value condition;
        const nyb_status status = value_of(run, node->a, scope, &condition);
        if (status != NYB_OK)
            return status;
        if (nyb_value_true(&condition))
            return run_all(run, node->body, scope, out);
        // An elif hangs here by itself; an else is a list of statements.
        if (!node->other || !node->other_is_elif)
            return run_all(run, node->other, scope, out);
        node = node->other;
    }
    return NYB_OK;
}

static nyb_status run_one(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                          nyb_bytes *out)
{
    nyb_value value = nyb_value_undefined();
    nyb_status status = NYB_OK;
    const size_t begin = out->count;
    switch (node->kind) {
    case JINJA_WRITE:
        value = nyb_value_text(node->text, node->length);
        return nyb_value_print(run, &value, out);
    case JINJA_PRINT:
        status = value_of(run, node->a, scope, &value);
        return status == NYB_OK ? nyb_value_print(run, &value, out) : status;
    case JINJA_IF:
        return run_if(run, node, scope, out);
    case JINJA_FOR:
        return run_for(run, node, scope, out);
    case JINJA_SET:
        status = value_of(run, node->a, scope, &value);
        return status == NYB_OK ? unpack(run, scope, node->list, value) : status;
    case JINJA_SET_MEMBER:
        return set_member(run, node, scope);
    case JINJA_CAPTURE:
        return capture(run, node, scope);
    case JINJA_MACRO:
        return assign(run, scope, node->text, (nyb_value){.kind = NYB_VALUE_MACRO, .macro = node});
    case JINJA_GENERATION:
        status = run_all(run, node->body, scope, out);
        if (status == NYB_OK && run->generated)
            nyb_ranges_add(run->generated, begin, out->count, true);
        return status;
    case JINJA_BREAK:
        run->flow = JINJA_LEAVE_LOOP;
        return NYB_OK;
    case JINJA_CONTINUE:
        run->flow = JINJA_NEXT_ROUND;
        return NYB_OK;
    default:
        return NYB_OK;
    }
}

static nyb_status run_all(nyb_jinja_run *run, const nyb_jinja_node *node, nyb_jinja_scope *scope,
                          nyb_bytes *out)
{
    for (; node && run->flow == JINJA_GO_ON; node = node->next) {
        nyb_status status = enter(run);
        if (status != NYB_OK)
            return status;
        status = run_one(run, node, scope, out);
        run->depth--;
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_jinja_render(const nyb_jinja *jinja, const json_t *variables, nyb_bytes *out,
                            nyb_ranges *generated, nyb_err *err)
{
    nyb_jinja_scope root = {0};
    nyb_jinja_run run = {
        .root = &root, .generated = generated, .steps = STEPS, .bytes = BYTES, .err = err};
    nyb_value value;
    nyb_status status = nyb_value_of_json(&run, variables, &value);
    if (status == NYB_OK) {
        root.names = *value.map;
        status = run_all(&run, jinja->body, &root, out);
    }
    if (status == NYB_OK)
        status = nyb_bytes_status(out, err);
    nyb_arena_clear(&run.arena);
    return status;
}
