#include "calib/output_files.h"

#include <dirent.h>
#include <fnmatch.h>
#include <string.h>

#include "core/file.h"
#include "model/gguf_folder.h"
#include "model/keras_hub_config.h"

// Files that a reader may want beside the tensors.
static const char *const companions[] = {
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "encoder.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.tiktoken",
    "generation_config.json",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
    "processor_config.json",
    "preprocessor_config.json",
};

// The folder that is being filled.
typedef struct filling {
    const nyb_job *job;
    const char *folder;
    nyb_arena *arena;
} filling;

static nyb_status copy_companions(const filling *f, nyb_err *err)
{
    const char *const folder = nyb_model_folder(f->job->model);
    DIR *const list = opendir(folder);
    if (!list)
        return nyb_fail(err, NYB_E_IO, "%s: cannot list the folder", folder);

    nyb_status status = NYB_OK;
    const struct dirent *entry;
    while (status == NYB_OK && (entry = readdir(list))) {
        bool wanted = false;
        for (size_t i = 0; i < sizeof(companions) / sizeof(companions[0]); i++)
            wanted |= fnmatch(companions[i], entry->d_name, FNM_PERIOD) == 0;
        const char *const from = nyb_path_join(f->arena, folder, entry->d_name);
        const char *const to = nyb_path_join(f->arena, f->folder, entry->d_name);
        if (!from || !to)
            status = nyb_no_memory(err, folder, 1, 1);
        else if (wanted && !nyb_path_is_folder(from))
            status = nyb_file_copy(from, to, err);
    }
    (void) closedir(list);
    return status;
}

// config.json as text, with the quantization_config put before its last brace: everything else in
// it stays as its author wrote it.
static nyb_status append_config(const filling *f, const char *text, const json_t *quantization,
                                const char *to, nyb_err *err)
{
    const char *end = strrchr(text, '}');
    while (end && end > text && strchr(" \t\r\n", end[-1]))
        end--;
    const char *const start = end ? nyb_arena_text(f->arena, text, (size_t) (end - text)) : NULL;
    char *const inner = json_dumps(quantization, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    nyb_status status = NYB_OK;
    if (!inner || !start) {
        status = nyb_no_memory(err, "config.json", strlen(text), 1);
    } else {
        const char *const whole =
            nyb_arena_format(f->arena, "%s,\n  \"quantization_config\": %s\n}\n", start, inner);
        status = whole ? nyb_file_write(to, whole, strlen(whole), err)
                       : nyb_no_memory(err, "config.json", strlen(text), 1);
    }
    free(inner);
    return status;
}

// What the source's configuration says about types and quantization gives way to the output's.
static nyb_status replace_config(const nyb_job *job, json_t *config, const json_t *quantization,
                                 const char *to, nyb_err *err)
{
    static const char *const names[] = {
        [NYB_F32] = "float32", [NYB_F16] = "float16", [NYB_BF16] = "bfloat16"};
    const bool old = json_object_get(config, "torch_dtype") && !json_object_get(config, "dtype");
    (void) json_object_del(config, "compression_config");
    (void) json_object_del(config, "quantization_config");
    if (quantization)
        json_object_set(config, "quantization_config", (json_t *) (uintptr_t) quantization);
    if (job->unties) {
        json_object_set_new(config, "tie_word_embeddings", json_false());
        if (json_object_get(json_object_get(config, "text_config"), "tie_word_embeddings"))
            json_object_set_new(json_object_get(config, "text_config"), "tie_word_embeddings",
                                json_false());
    }
    if (job->casts)
        json_object_set_new(config, old ? "torch_dtype" : "dtype", json_string(names[job->dtype]));
    return nyb_json_save(config, to, err);
}

static const nyb_keras_file *preset_of(const filling *f)
{
    return nyb_checkpoint_keras(nyb_model_checkpoint(f->job->model));
}

// The configuration that a preset has under other names.
static nyb_status translate_config(const filling *f, const json_t *quantization, const char *to,
                                   nyb_err *err)
{
    json_t *config = NULL;
    nyb_status status = nyb_hub_config(&config, preset_of(f), err);
    if (status == NYB_OK)
        status = replace_config(f->job, config, quantization, to, err);
    json_decref(config);
    return status;
}

static nyb_status save_config(const filling *f, const json_t *quantization, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    const char *const from =
        nyb_path_join(f->arena, nyb_model_folder(f->job->model), "config.json");
    const char *const to = nyb_path_join(f->arena, f->folder, "config.json");
    if (!from || !to)
        return nyb_no_memory(err, "config.json", 1, 1);
    if (preset_of(f))
        return translate_config(f, quantization, to, err);
    nyb_status status = nyb_file_read(f->arena, from, 64 << 20, &text, &length, err);
    json_t *config = NULL;
    if (status == NYB_OK)
        status = nyb_json_parse(&config, text, length, from, err);
    if (status != NYB_OK)
        return status;
    if (f->job->casts || f->job->unties || json_object_get(config, "quantization_config") ||
        json_object_get(config, "compression_config") || json_object_size(config) == 0)
        status = replace_config(f->job, config, quantization, to, err);
    else
        status = append_config(f, text, quantization, to, err);
    json_decref(config);
    return status;
}

// The source's own.
static nyb_status copy_configs(const filling *f, nyb_err *err)
{
    static const char *const names[] = {"config.json", "quantize_config.json"};
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < sizeof(names) / sizeof(names[0]); i++) {
        const char *const from = nyb_path_join(f->arena, nyb_model_folder(f->job->model), names[i]);
        const char *const to = nyb_path_join(f->arena, f->folder, names[i]);
        if (!from || !to)
            return nyb_no_memory(err, names[i], 1, 1);
        if (nyb_path_exists(from))
            status = nyb_file_copy(from, to, err);
    }
    return status;
}

static nyb_status save_configs(const filling *f, nyb_err *err)
{
    if (f->job->keeps_config)
        return copy_configs(f, err);
    if (!f->job->layout)
        return save_config(f, NULL, err);
    json_t *const config = nyb_job_quantization_config(f->job);
    if (!config)
        return nyb_no_memory(err, "quantization_config", 1, 1);
    nyb_status status = save_config(f, config, err);
    if (status == NYB_OK && f->job->layout->quantize_config) {
        const char *const path = nyb_path_join(f->arena, f->folder, "quantize_config.json");
        status = path ? nyb_json_save(config, path, err) : nyb_no_memory(err, "path", 1, 1);
    }
    json_decref(config);
    return status;
}

// A preset's tokenizer as far as it lies in files that a folder has too.
static nyb_status copy_assets(const filling *f, nyb_err *err)
{
    static const char *const names[][2] = {{"assets/tokenizer/vocabulary.json", "vocab.json"},
                                           {"assets/tokenizer/merges.txt", "merges.txt"},
                                           {"assets/tokenizer/vocabulary.spm", "tokenizer.model"}};
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && status == NYB_OK; i++) {
        const char *const from =
            nyb_path_join(f->arena, nyb_model_folder(f->job->model), names[i][0]);
        const char *const to = nyb_path_join(f->arena, f->folder, names[i][1]);
        if (!from || !to)
            return nyb_no_memory(err, "a path", strlen(f->folder), 1);
        if (nyb_path_exists(from))
            status = nyb_file_copy(from, to, err);
    }
    return status;
}

// What a GGUF file holds of a folder's small files.
static nyb_status unpack_files(const filling *f, nyb_err *err)
{
    const nyb_gguf *const file = nyb_checkpoint_gguf(nyb_model_checkpoint(f->job->model));
    const char *const path = nyb_path_join(f->arena, f->folder, "config.json");
    json_t *config = NULL;
    if (!path)
        return nyb_no_memory(err, "a path", strlen(f->folder), 1);
    nyb_status status = nyb_gguf_folder_config(&config, file, err);
    if (status == NYB_OK)
        status = replace_config(f->job, config, NULL, path, err);
    json_decref(config);
    return status == NYB_OK ? nyb_gguf_folder_tokenizer(file, f->folder, err) : status;
}

nyb_status nyb_output_save_files(const nyb_job *job, const char *folder, nyb_arena *arena,
                                 nyb_err *err)
{
    const filling f = {.job = job, .folder = folder, .arena = arena};
    if (job->unpacks)
        return unpack_files(&f, err);
    const nyb_status status = preset_of(&f) ? copy_assets(&f, err) : copy_companions(&f, err);
    return status == NYB_OK ? save_configs(&f, err) : status;
}
