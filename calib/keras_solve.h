// keras_solve.h - GPTQ for plain Keras models: sample arrays run through the model's graph, and every
// linear is solved for what the rounded layers before it really give.
#ifndef NYB_CALIB_KERAS_SOLVE_H_
#define NYB_CALIB_KERAS_SOLVE_H_

#include "calib/recipe.h"
#include "model/keras_graph.h"

// What became of the kernel of one Dense or EinsumDense.
typedef struct nyb_keras_solved {
    const nyb_keras_layer *layer;
    nyb_settings settings;
    nyb_qweight q; // [outputs, inputs], as Keras flattens the kernel
    nyb_gptq_report report;
} nyb_keras_solved;

typedef struct nyb_keras_solution {
    nyb_keras_solved *layers; // [count] in the order in which they were solved
    size_t count;
    size_t samples;
} nyb_keras_solution;

// Says how a layer is to be rounded; out->skip: not at all.
typedef struct nyb_keras_choice {
    void *user;
    nyb_status (*settings)(void *user, const nyb_keras_layer *layer, nyb_settings *out,
                           nyb_err *err);
} nyb_keras_choice;

// Solves every Dense and EinsumDense of a model, also those in other layers. A shared layer's
// Hessian is summed over all its calls, which the layer itself runs unrounded in until then.
//
//   samples  .npy files in samples->paths, one for each of the model's inputs; the first
//            samples->count samples of them where samples->counted
//
// NYB_E_ARG          no samples, or another number of files than the model has inputs.
// NYB_E_UNSUPPORTED  a layer that the graph does not know, or a kernel that Keras flattens
//                    otherwise than its equation multiplies it; err names it.
// Others as nyb_graph_open(), nyb_graph_make(), nyb_gptq_prepare() and nyb_solve_layer(). On an
// error out holds nothing.
NYB_NODISCARD nyb_status nyb_keras_solve(const nyb_context *ctx, nyb_keras_solution *out,
                                         const nyb_keras_layers *layers, nyb_keras_file *file,
                                         const nyb_samples_params *samples,
                                         const nyb_keras_choice *choice, nyb_err *err);
void nyb_keras_solution_clear(nyb_keras_solution *solution); // zeroed is fine

// What was solved of this layer, NULL: nothing.
const nyb_keras_solved *nyb_keras_solved_of(const nyb_keras_solution *solution,
                                            const nyb_keras_layer *layer);

#endif // NYB_CALIB_KERAS_SOLVE_H_
