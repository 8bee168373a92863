// output.h - the folder that a run writes: made beside its final name, filled tensor by tensor,
// checked against what was solved, and renamed when it is whole.
#ifndef NYB_CALIB_OUTPUT_H_
#define NYB_CALIB_OUTPUT_H_

#include "calib/job.h"
#include "calib/journal.h"
#include "calib/output_plan.h"
#include "calib/report_name.h"

typedef struct nyb_output {
    const nyb_job *job;
    nyb_arena arena;
    char *partial; // "OUT.partial"
    bool made;     // by this run, so it is this run's to remove
    nyb_output_plan plan;
    nyb_store *store;
    nyb_journal journal;
} nyb_output;

// Makes the partial folder with everything but the rounded layers in it; or, to resume, takes up
// the one that is there. journal.blocks then tells which blocks are finished.
//
//   run  what identifies the run: an interrupted one has to have the same
//
// NYB_E_EXISTS  OUT or OUT.partial is there and the parameters do not say what to do with it.
// NYB_E_ARG     OUT.partial is another run's.
// Others as the file operations give them.
NYB_NODISCARD nyb_status nyb_output_open(const nyb_context *ctx, nyb_output *out,
                                         const nyb_job *job, const json_t *run, nyb_err *err);

// Bytes of all tensors that the job will write.
NYB_NODISCARD nyb_status nyb_output_bytes(const nyb_job *job, size_t *bytes, nyb_err *err);

// Packs a layer and puts it into its place.
NYB_NODISCARD nyb_status nyb_output_put(nyb_output *out, const nyb_job_layer *layer,
                                        const nyb_qweight *q, nyb_err *err);

// Writes a layer of the form NYB_FORM_MADE from w [rows, cols]; sha256 receives the hash of its
// bytes. NYB_E_UNSUPPORTED: a value is too large for the layer's type.
NYB_NODISCARD nyb_status nyb_output_put_floats(nyb_output *out, const nyb_job_layer *layer,
                                               nyb_mat w, char sha256[NYB_HASH_TEXT], nyb_err *err);

// The block's tensors are on disk, and the journal says so. Takes over `line`.
NYB_NODISCARD nyb_status nyb_output_commit(nyb_output *out, json_t *line, nyb_err *err);

// Completes the files, reads everything back, compares it with what was solved (the journal's
// hashes) and with the source, saves `report`, and gives the folder its final name.
//
// NYB_E_VERIFY  something differs; the folder stays partial.
NYB_NODISCARD nyb_status nyb_output_finish(const nyb_context *ctx, nyb_output *out,
                                           const json_t *report, nyb_err *err);

// The report of a run: "schema", "command", "run", "totals", "layers". Takes over `totals`; the others
// stay the caller's. NULL: there is no memory, or one of them is NULL.
json_t *nyb_output_report(const nyb_job *job, const json_t *run, json_t *totals,
                          const json_t *layers);

// Commits the layers of the report as the run's only block, and finishes as nyb_output_finish(). Takes
// over `report`; NULL is NYB_E_NOMEM.
NYB_NODISCARD nyb_status nyb_output_finish_once(const nyb_context *ctx, nyb_output *out,
                                                json_t *report, nyb_err *err);

// Closes all. A partial folder that this run made is removed if it has no finished block.
void nyb_output_close(nyb_output *out);

#endif // NYB_CALIB_OUTPUT_H_
