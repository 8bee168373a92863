// layout_driver.c - the library's layouts and tensor files on the command line, for tests that
// compare them with other programs. Not installed.
//
//   layout_driver write LAYOUT BITS GROUP sym|asym F16|BF16|F32 ARRAYS OUT
//       packs ARRAYS/{codes,scales,zeros,g_idx}.npy as the module "m.q" into the folder OUT, with
//       its config.json. GROUP 0: one per channel.
//   layout_driver read MODEL MODULE ROWS COLS OUT
//       the inverse: writes OUT/{codes,scales,zeros,g_idx}.npy
//   layout_driver config LAYOUT MODULES.json
//       prints the quantization_config for [[name, bits, group, symmetric] or [name], ...]
//   layout_driver copy MODEL OUT SHARD_BYTES
//       writes the same tensors again through the store
//   layout_driver ask MODEL MODULE...
//       prints what the quantization config says about each module
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/npy.h"
#include "formats/quantization.h"
#include "formats/safetensors.h"

static nyb_err fault;

static void must(nyb_status status)
{
    if (status != NYB_OK) {
        fprintf(stderr, "%s: %s\n", nyb_status_name(status), fault.text);
        exit(1);
    }
}

static size_t size_of(const char *text)
{
    return (size_t) strtoull(text, NULL, 10);
}

static nyb_npy array_of(nyb_arena *arena, const char *folder, const char *name)
{
    nyb_npy array;
    must(nyb_npy_open(&array, nyb_path_join(arena, folder, name), &fault));
    return array;
}

static nyb_qweight gather(nyb_arena *arena, char **args)
{
    const unsigned bits = (unsigned) size_of(args[1]);
    const char *const folder = args[5];
    nyb_qweight q;
    nyb_npy codes = array_of(arena, folder, "codes.npy");
    nyb_npy scales = array_of(arena, folder, "scales.npy");
    nyb_npy zeros = array_of(arena, folder, "zeros.npy");
    nyb_npy order = array_of(arena, folder, "g_idx.npy");

    must(nyb_qweight_init(&q, codes.tensor.shape[0], codes.tensor.shape[1], bits, size_of(args[2]),
                          &fault));
    q.symmetric = strcmp(args[3], "sym") == 0;
    if (!nyb_dtype_by_name(args[4], &q.scale_dtype) || codes.tensor.bytes != q.rows * q.cols ||
        zeros.tensor.bytes != q.rows * q.groups || scales.tensor.bytes != 4 * q.rows * q.groups ||
        order.tensor.bytes != 4 * q.cols)
        exit(2);
    memcpy(q.codes, codes.tensor.at, codes.tensor.bytes);
    memcpy(q.scales, scales.tensor.at, scales.tensor.bytes);
    memcpy(q.zeros, zeros.tensor.at, zeros.tensor.bytes);
    for (size_t j = 0; j < q.cols; j++) {
        memcpy(&q.group_of[j], (const char *) order.tensor.at + 4 * j, 4);
        q.irregular = q.irregular || q.group_of[j] != j / q.group_size;
    }
    nyb_npy_close(&codes);
    nyb_npy_close(&scales);
    nyb_npy_close(&zeros);
    nyb_npy_close(&order);
    return q;
}

static void write_layer(nyb_arena *arena, char **args)
{
    const nyb_layout *const layout = nyb_layout_by_name(args[0]);
    nyb_qweight q = gather(arena, args);
    nyb_tensor tensors[NYB_LAYOUT_TENSORS];
    size_t count = 0;
    nyb_store *store = NULL;
    nyb_layout_module modules[] = {
        {.name = "m.q", .quantized = true, .spec = nyb_layout_spec_of(&q)}, {.name = "lm_head"}};
    modules[0].spec.group_size = size_of(args[2]);
    const nyb_layout_run run = {.modules = modules, .count = 2, .damp = 0.01};

    must(layout->check(&modules[0].spec, "m.q", &fault));
    must(layout->tensors(tensors, &count, &modules[0].spec, "m.q", arena, &fault));
    must(nyb_store_create(&store, args[6], tensors, count, 0, &fault));
    must(nyb_layout_put(layout, store, "m.q", &q, &fault));
    must(nyb_store_finish(store, &fault));
    nyb_store_close(store);
    json_t *const config =
        json_pack("{s:s, s:o}", "model_type", "test", "quantization_config", layout->config(&run));
    must(nyb_json_save(config, nyb_path_join(arena, args[6], "config.json"), &fault));
    json_decref(config);
    nyb_qweight_clear(&q);
}

static void save(nyb_arena *arena, const char *folder, const char *name, nyb_tensor array)
{
    array.bytes =
        array.shape[0] * (array.rank > 1 ? array.shape[1] : 1) * nyb_dtype_bytes(array.dtype);
    must(nyb_npy_save(nyb_path_join(arena, folder, name), &array, &fault));
}

static void read_layer(nyb_arena *arena, char **args)
{
    nyb_checkpoint *file = NULL;
    nyb_quantization *quantization = NULL;
    nyb_qweight q;
    must(nyb_checkpoint_open(&file, args[0], &fault));
    must(nyb_quantization_load(&quantization, args[0], &fault));
    must(nyb_quantization_read(&q, quantization, file, args[1], size_of(args[2]), size_of(args[3]),
                               &fault));
    const size_t codes[] = {q.rows, q.cols}, groups[] = {q.rows, q.groups};
    save(arena, args[4], "codes.npy",
         (nyb_tensor){"", NYB_U8, 2, {codes[0], codes[1]}, q.codes, 0, {0}});
    save(arena, args[4], "zeros.npy",
         (nyb_tensor){"", NYB_U8, 2, {groups[0], groups[1]}, q.zeros, 0, {0}});
    save(arena, args[4], "scales.npy",
         (nyb_tensor){"", NYB_F32, 2, {groups[0], groups[1]}, q.scales, 0, {0}});
    save(arena, args[4], "g_idx.npy", (nyb_tensor){"", NYB_I32, 1, {q.cols}, q.group_of, 0, {0}});
    nyb_qweight_clear(&q);
    nyb_quantization_close(quantization);
    nyb_checkpoint_close(file);
}

static void print_config(nyb_arena *arena, char **args)
{
    json_t *list = NULL;
    must(nyb_json_load(&list, args[1], &fault));
    const size_t count = json_array_size(list);
    nyb_layout_module *const modules = nyb_arena_alloc(arena, count, sizeof(*modules));
    for (size_t i = 0; i < count; i++) {
        const json_t *const item = json_array_get(list, i);
        modules[i].name = json_string_value(json_array_get(item, 0));
        modules[i].quantized = json_array_size(item) > 1;
        modules[i].spec = (nyb_layout_spec){
            .bits = (unsigned) json_integer_value(json_array_get(item, 1)),
            .group_size = (size_t) json_integer_value(json_array_get(item, 2)),
            .symmetric = json_is_true(json_array_get(item, 3)),
        };
    }
    const nyb_layout_run run = {.modules = modules, .count = count, .damp = 0.01};
    json_t *const config = nyb_layout_by_name(args[0])->config(&run);
    json_dumpf(config, stdout, JSON_INDENT(2));
    json_decref(config);
    json_decref(list);
}

static void copy(nyb_arena *arena, char **args)
{
    nyb_checkpoint *file = NULL;
    nyb_store *store = NULL;
    must(nyb_checkpoint_open(&file, args[0], &fault));
    const size_t count = nyb_checkpoint_count(file);
    nyb_tensor *const tensors = nyb_arena_alloc(arena, count, sizeof(*tensors));
    for (size_t i = 0; i < count; i++)
        tensors[i] = *nyb_checkpoint_at(file, i);
    must(nyb_store_create(&store, args[1], tensors, count, size_of(args[2]), &fault));
    for (size_t i = count; i-- > 0;)
        must(nyb_store_put(store, tensors[i].name, tensors[i].at, tensors[i].bytes, &fault));
    must(nyb_store_finish(store, &fault));
    nyb_store_close(store);
    nyb_checkpoint_close(file);
}

static void ask(char **args, int count)
{
    nyb_quantization *quantization = NULL;
    must(nyb_quantization_load(&quantization, args[0], &fault));
    for (int i = 1; i < count; i++) {
        nyb_quantized found;
        must(nyb_quantization_of(&found, quantization, args[i], &fault));
        if (found.layout)
            printf("%s %u %zu %d\n", found.layout->name, found.spec.bits, found.spec.group_size,
                   found.spec.symmetric);
        else
            printf("none\n");
    }
    nyb_quantization_close(quantization);
}

int main(int argc, char **argv)
{
    nyb_arena arena = {0};
    if (argc == 9 && strcmp(argv[1], "write") == 0)
        write_layer(&arena, argv + 2);
    else if (argc == 7 && strcmp(argv[1], "read") == 0)
        read_layer(&arena, argv + 2);
    else if (argc == 4 && strcmp(argv[1], "config") == 0)
        print_config(&arena, argv + 2);
    else if (argc == 5 && strcmp(argv[1], "copy") == 0)
        copy(&arena, argv + 2);
    else if (argc >= 3 && strcmp(argv[1], "ask") == 0)
        ask(argv + 2, argc - 2);
    else
        return 2;
    nyb_arena_clear(&arena);
    return 0;
}
