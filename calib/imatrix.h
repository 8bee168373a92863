// imatrix.h - llama.cpp's importance matrix: for every layer, the sum of squares of each input over
// the calibration tokens, which is the diagonal of its Hessian.
#ifndef NYB_CALIB_IMATRIX_H_
#define NYB_CALIB_IMATRIX_H_

#include "calib/job.h"

typedef struct nyb_imatrix {
    nyb_arena arena;
    const nyb_job *job;
    struct {
        const char *name; // of the weight in a GGUF file
        const float *sums;
        float count;
        size_t cols;
    } * layers; // [count]
    size_t count;
} nyb_imatrix;

// NYB_E_UNSUPPORTED  GGUF has no names for the model's layers.
NYB_NODISCARD nyb_status nyb_imatrix_open(nyb_imatrix *out, const nyb_job *job, nyb_err *err);
void nyb_imatrix_close(nyb_imatrix *imatrix); // zeroed is fine

// Takes the diagonal for a layer.
NYB_NODISCARD nyb_status nyb_imatrix_add(nyb_imatrix *imatrix, const nyb_job_layer *layer,
                                         const nyb_hessian *hessian, nyb_err *err);

// Writes what was taken to job->params->imatrix.
NYB_NODISCARD nyb_status nyb_imatrix_save(nyb_imatrix *imatrix, nyb_err *err);

#endif // NYB_CALIB_IMATRIX_H_
