#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "nybble/inspect.h"

typedef struct options {
    bool tensors, layers, check;
} options;

static const options defaults = {0};

static const nyb_option table[] = {
    {"tensors", 0, NYB_OPTION_FLAG, NYB_INTO(options, tensors), .about = "List every tensor."},
    {"layers", 0, NYB_OPTION_FLAG, NYB_INTO(options, layers),
     .about = "List every layer instead of a summary."},
    {"check", 0, NYB_OPTION_FLAG, NYB_INTO(options, check),
     .about = "Read everything: quantised layers in full, and look for NaN and infinity in the "
              "other tensors. Exits with 1 when something is wrong."},
    {0}};

static const char *const verdicts[] = {
    [NYB_LOADS] = "yes", [NYB_LOADS_IF] = "if", [NYB_LOADS_NOT] = "no"};

static const char *order_name(const nyb_inspect_layer *layer)
{
    return layer->irregular ? "full" : "plain";
}

static double layer_bits(const nyb_inspect_layer *layer)
{
    return layer->weights > 0 ? 8.0 * (double) layer->bytes / layer->weights : 0.0;
}

// ---- JSON -----------------------------------------------------------------------------------

static json_t *size_json(size_t value)
{
    return json_integer((json_int_t) value);
}

static json_t *files_json(const nyb_inspection *in)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < in->file_count; i++)
        (void) json_array_append_new(list, json_pack("{s:s, s:o}", "path", in->files[i].path,
                                                     "bytes", size_json(in->files[i].bytes)));
    return list;
}

static json_t *dtypes_json(const nyb_inspection *in)
{
    json_t *const map = json_object();
    for (size_t i = 0; i < in->dtype_count; i++)
        (void) json_object_set_new(map, nyb_dtype_name(in->dtypes[i].dtype),
                                   json_pack("{s:o, s:o}", "tensors",
                                             size_json(in->dtypes[i].tensors), "bytes",
                                             size_json(in->dtypes[i].bytes)));
    return map;
}

static json_t *layer_json(const nyb_inspect_layer *layer)
{
    json_t *const item = json_pack("{s:s, s:s?, s:s, s:[o, o], s:o, s:s?}", "name", layer->name,
                                   "layout", layer->layout, "dtype", nyb_dtype_name(layer->dtype),
                                   "shape", size_json(layer->rows), size_json(layer->cols), "bytes",
                                   size_json(layer->bytes), "fault", layer->fault);
    if (layer->layout)
        (void) json_object_update_new(
            item, json_pack("{s:i, s:o, s:b, s:s, s:f}", "bits", (int) layer->bits, "group_size",
                            layer->group_size ? size_json(layer->group_size) : json_integer(-1),
                            "symmetric", layer->symmetric, "order", order_name(layer),
                            "bits_per_weight", layer_bits(layer)));
    return item;
}

static json_t *layers_json(const nyb_inspection *in)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < in->layer_count; i++)
        (void) json_array_append_new(list, layer_json(&in->layers[i]));
    return list;
}

static json_t *readers_json(const nyb_inspection *in)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < in->reader_count; i++) {
        const nyb_inspect_reader *const reader = &in->readers[i];
        json_t *const reasons = json_array();
        for (size_t k = 0; k < reader->reason_count; k++)
            (void) json_array_append_new(reasons, json_string(reader->reasons[k]));
        (void) json_array_append_new(list,
                                     json_pack("{s:s, s:s, s:o}", "name", reader->name, "loads",
                                               verdicts[reader->verdict], "reasons", reasons));
    }
    return list;
}

static json_t *tensors_json(const nyb_inspection *in)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < in->tensor_count; i++) {
        const nyb_tensor *const tensor = in->tensors[i];
        json_t *const shape = json_array();
        for (unsigned k = 0; k < tensor->rank; k++)
            (void) json_array_append_new(shape, size_json(tensor->shape[k]));
        (void) json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:o, s:s}", "name", tensor->name, "dtype",
                            nyb_dtype_name(tensor->dtype), "shape", shape, "bytes",
                            size_json(tensor->bytes), "file", in->tensor_files[i]));
    }
    return list;
}

static void print_json(const nyb_call *call, const nyb_inspection *in, bool tensors)
{
    json_t *const doc = nyb_call_document(call);
    (void) json_object_update_new(
        doc, json_pack("{s:s, s:s?, s:s?, s:s?, s:s, s:s?, s:o, s:o, s:o, s:f, s:f}", "path",
                       in->path, "model_type", in->model_type, "family", in->family, "model_fault",
                       in->model_fault, "method", in->method, "fault", in->fault, "tensor_count",
                       size_json(in->tensor_count), "bytes", size_json(in->bytes), "parameters",
                       size_json(in->parameters), "bits_per_parameter", in->bits,
                       "bits_per_quantized_weight", in->layer_bits));
    json_t *const unsupported = json_array();
    for (size_t i = 0; i < in->unsupported_count; i++)
        (void) json_array_append_new(unsupported, json_string(in->unsupported[i]));
    (void) json_object_set_new(doc, "unsupported", unsupported);
    (void) json_object_set_new(doc, "faults", size_json(in->faults));
    (void) json_object_set_new(doc, "first_fault",
                               in->first_fault ? json_string(in->first_fault) : json_null());
    (void) json_object_set_new(doc, "files", files_json(in));
    (void) json_object_set_new(doc, "dtypes", dtypes_json(in));
    (void) json_object_set_new(doc, "layers", layers_json(in));
    (void) json_object_set_new(doc, "readers", readers_json(in));
    if (tensors)
        (void) json_object_set_new(doc, "tensors", tensors_json(in));
    nyb_call_print_json(call, doc);
}

// ---- Text -----------------------------------------------------------------------------------

static void print_head(const nyb_inspection *in)
{
    char bytes[32];
    (void) printf("%s\n", in->path);
    if (in->model_type)
        (void) printf("model         %s\n", in->model_type);
    if (in->family)
        (void) printf("family        %s\n", in->family);
    for (size_t i = 0; i < in->unsupported_count; i++)
        (void) printf("%-13s %s\n", i ? "" : "unsupported", in->unsupported[i]);
    (void) printf("quantization  %s\n", in->method);
    if (in->fault)
        (void) printf("              %s\n", in->fault);
    (void) printf("files         %zu\n", in->file_count);
    (void) printf("tensors       %zu, %s\n", in->tensor_count, nyb_bytes_text(bytes, in->bytes));
    (void) printf("parameters    %zu, %.3f bits each\n", in->parameters, in->bits);
    for (size_t i = 0; i < in->dtype_count; i++)
        (void) printf("%-13s %zu tensors, %s\n", nyb_dtype_name(in->dtypes[i].dtype),
                      in->dtypes[i].tensors, nyb_bytes_text(bytes, in->dtypes[i].bytes));
}

static bool alike(const nyb_inspect_layer *a, const nyb_inspect_layer *b)
{
    if (!a->layout || !b->layout)
        return a->layout == b->layout && a->dtype == b->dtype;
    return strcmp(a->layout, b->layout) == 0 && a->dtype == b->dtype && a->bits == b->bits &&
           a->group_size == b->group_size && a->symmetric == b->symmetric &&
           a->irregular == b->irregular;
}

static void settings_cells(nyb_table *cells, const nyb_inspect_layer *layer)
{
    nyb_table_cell(cells, "%s", layer->layout ? layer->layout : "-");
    nyb_table_cell(cells, "%s", nyb_dtype_name(layer->dtype));
    if (!layer->layout || layer->bits == 0) {
        for (unsigned i = 0; i < 4; i++)
            nyb_table_cell(cells, "-");
        return;
    }
    nyb_table_cell(cells, "%u", layer->bits);
    if (layer->group_size)
        nyb_table_cell(cells, "%zu", layer->group_size);
    else
        nyb_table_cell(cells, "channel");
    nyb_table_cell(cells, "%s", layer->symmetric ? "symmetric" : "asymmetric");
    nyb_table_cell(cells, "%s", order_name(layer));
}

// One line for all layers of the same kind.
static void print_summary(const nyb_inspection *in)
{
    static const nyb_column columns[] = {{"layers", true}, {"layout", false},    {"type", false},
                                         {"bits", true},   {"group", true},      {"zero", false},
                                         {"order", false}, {"bits/weight", true}};
    nyb_table cells = nyb_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < in->layer_count; i++) {
        const nyb_inspect_layer *const layer = &in->layers[i];
        nyb_inspect_layer sum = {0};
        size_t before = 0, count = 0;
        double weights = 0, bytes = 0;
        for (size_t k = 0; k < i && before == 0; k++)
            before += alike(&in->layers[k], layer);
        if (before)
            continue;
        for (size_t k = i; k < in->layer_count; k++) {
            sum = in->layers[k];
            if (!alike(&sum, layer))
                continue;
            count++;
            weights += sum.weights;
            bytes += (double) sum.bytes;
        }
        nyb_table_cell(&cells, "%zu", count);
        settings_cells(&cells, layer);
        nyb_table_cell(&cells, "%.3f", weights > 0 ? 8.0 * bytes / weights : 0.0);
    }
    (void) printf("\n");
    nyb_table_print(&cells);
}

static void print_layers(const nyb_inspection *in)
{
    static const nyb_column columns[] = {{"layer", false}, {"shape", true},  {"layout", false},
                                         {"type", false},  {"bits", true},   {"group", true},
                                         {"zero", false},  {"order", false}, {"bits/weight", true}};
    nyb_table cells = nyb_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < in->layer_count; i++) {
        const nyb_inspect_layer *const layer = &in->layers[i];
        nyb_table_cell(&cells, "%s", layer->name);
        nyb_table_cell(&cells, "%zu x %zu", layer->rows, layer->cols);
        settings_cells(&cells, layer);
        nyb_table_cell(&cells, "%.3f", layer_bits(layer));
    }
    (void) printf("\n");
    nyb_table_print(&cells);
}

static void print_tensors(const nyb_inspection *in)
{
    static const nyb_column columns[] = {
        {"tensor", false}, {"type", false}, {"shape", true}, {"bytes", true}, {"file", false}};
    nyb_table cells = nyb_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < in->tensor_count; i++) {
        const nyb_tensor *const tensor = in->tensors[i];
        char shape[NYB_MAX_RANK * 24] = "";
        size_t used = 0;
        for (unsigned k = 0; k < tensor->rank; k++)
            used += (size_t) snprintf(shape + used, sizeof(shape) - used, "%s%zu", k ? " x " : "",
                                      tensor->shape[k]);
        const char *const slash = strrchr(in->tensor_files[i], '/');
        nyb_table_cell(&cells, "%s", tensor->name);
        nyb_table_cell(&cells, "%s", nyb_dtype_name(tensor->dtype));
        nyb_table_cell(&cells, "%s", shape);
        nyb_table_cell(&cells, "%zu", tensor->bytes);
        nyb_table_cell(&cells, "%s", slash ? slash + 1 : in->tensor_files[i]);
    }
    (void) printf("\n");
    nyb_table_print(&cells);
}

static void print_readers(const nyb_inspection *in)
{
    static const nyb_column columns[] = {{"reader", false}, {"loads", false}, {"why", false}};
    nyb_table cells = nyb_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < in->reader_count; i++) {
        const nyb_inspect_reader *const reader = &in->readers[i];
        for (size_t k = 0; k == 0 || k < reader->reason_count; k++) {
            nyb_table_cell(&cells, "%s", k ? "" : reader->name);
            nyb_table_cell(&cells, "%s", k ? "" : verdicts[reader->verdict]);
            nyb_table_cell(&cells, "%s", k < reader->reason_count ? reader->reasons[k] : "");
        }
    }
    (void) printf("\n");
    nyb_table_print(&cells);
}

static nyb_exit run(const nyb_call *call)
{
    const options *const o = call->options;
    const nyb_inspect_params params = {.check = o->check};
    nyb_inspection in;
    nyb_err err;
    if (nyb_inspect_open(&in, call->operands[0], &params, &call->context, &err) != NYB_OK)
        return nyb_call_fail(call, &err);

    if (call->json) {
        print_json(call, &in, o->tensors);
    } else {
        print_head(&in);
        if (in.layer_count > 0 && o->layers)
            print_layers(&in);
        else if (in.layer_count > 0)
            print_summary(&in);
        print_readers(&in);
        if (o->tensors)
            print_tensors(&in);
    }
    if (in.faults)
        nyb_call_warn(call, "%zu faults, the first: %s", in.faults, in.first_fault);
    const bool bad = o->check && (in.faults > 0 || in.fault);
    nyb_inspect_close(&in);
    return bad ? NYB_EXIT_FAILED : NYB_EXIT_OK;
}

const nyb_command nyb_command_inspect = {
    .name = "inspect",
    .about = "Shows what a checkpoint holds and which programs will load it",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(table, options, defaults),
    .examples =
        (const nyb_example[]){
            {"nybble inspect model", "Types, layers, and who can read it."},
            {"nybble inspect model --check", "Read all of it, to be sure."},
            {"nybble inspect model --json --tensors", "Everything, for a script."},
            {0}},
    .notes = "MODEL is a Hugging Face folder with safetensors files, or one such file, or a GGUF "
             "file. Of a folder with config.json alone it tells whether nybble would run such a "
             "model, and everything that is missing for it.",
    .run = run,
};
