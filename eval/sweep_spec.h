// sweep_spec.h - what a sweep is to do, read from its JSON file:
//
//     {"model": "llama",
//      "calibration": {"files": ["text.txt"], "num_samples": 64, "sequence_length": 512},
//      "eval": {"text": "wiki.test.raw", "window": 1024, "max_tokens": 8192, "kl": true},
//      "settings": {"group_size": 64, "symmetric": false},
//      "grid": {"weight_bits": [2, 3, 4], "refine": [0, 1]},
//      "points": [{"method": "int4", "group_size": -1}]}
//
// Paths are those of the folder that the program is called in.
#ifndef NYB_EVAL_SWEEP_SPEC_H_
#define NYB_EVAL_SWEEP_SPEC_H_

#include "core/arena.h"
#include "core/hash.h"
#include "core/json.h"
#include "model/model.h"
#include "nybble/calibrate.h"
#include "nybble/sweep.h"

enum { NYB_SWEEP_SETS = 64, NYB_SWEEP_POINTS = 10000 }; // at most, of a spec

// One set of calibration data.
typedef struct nyb_sweep_calibration {
    const char *name;
    nyb_samples_params samples; // .path_count 0: the store is the caller's own
    nyb_expert_calibration experts;
    const char *store;   // file of Hessians
    const char *command; // that makes it; NULL: it is the caller's own, or no point needs it
    const char *digest;  // of the tokens, or of the caller's store; NULL: not looked at yet
} nyb_sweep_calibration;

typedef struct nyb_sweep_task {
    const char *name;
    json_t *settings; // those that are said
    nyb_quantize_params params;
    const nyb_sweep_calibration *calibration; // NULL: none
    const char *command;
    json_t *identity;        // everything that the result depends on
    char key[NYB_HASH_TEXT]; // its digest
} nyb_sweep_task;

typedef struct nyb_sweep_spec {
    nyb_arena arena;
    json_t *document;
    const char *path, *out;
    const char *model, *format, *recipe;
    nyb_model *opened; // while the spec is read
    bool eval, kl;     // a text is given; divergence from the original is asked for
    nyb_eval_params eval_params;
    json_t *common;                      // of every identity
    char key[NYB_HASH_TEXT];             // of the model as it is
    nyb_sweep_calibration *calibrations; // [set_count] the spec's own come first
    size_t calibration_count, set_count;
    nyb_sweep_task *tasks;
    size_t count;
} nyb_sweep_spec;

// Reads the file and works out the points. Points that come to the same thing are one.
//
// NYB_E_FORMAT, NYB_E_ARG  as nyb_sweep(). On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_sweep_spec_open(nyb_sweep_spec *out, const nyb_context *ctx,
                                             const char *path, const char *folder, nyb_err *err);
void nyb_sweep_spec_close(nyb_sweep_spec *spec); // zeroed is fine

#endif // NYB_EVAL_SWEEP_SPEC_H_
