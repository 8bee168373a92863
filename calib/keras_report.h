// keras_report.h - the report of a run that makes a Keras checkpoint.
#ifndef NYB_CALIB_KERAS_REPORT_H_
#define NYB_CALIB_KERAS_REPORT_H_

#include "core/json.h"

// Saves the report: into the folder `partial`, or, where that is a file, beside `out`, the name that
// the file will have, as "OUT.report.json". Takes over `report`; NULL is NYB_E_NOMEM.
NYB_NODISCARD nyb_status nyb_keras_report_save(json_t *report, const char *partial, const char *out,
                                               nyb_err *err);

#endif // NYB_CALIB_KERAS_REPORT_H_
