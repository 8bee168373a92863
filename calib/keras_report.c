#include "calib/keras_report.h"

#include <string.h>

#include "calib/report_name.h"
#include "core/file.h"

nyb_status nyb_keras_report_save(json_t *report, const char *partial, const char *out, nyb_err *err)
{
    nyb_arena arena = {0};
    const char *const path = nyb_path_is_folder(partial)
                                 ? nyb_path_join(&arena, partial, NYB_REPORT_NAME)
                                 : nyb_arena_format(&arena, "%s.report.json", out);
    const nyb_status status =
        path && report ? nyb_json_save(report, path, err) : nyb_no_memory(err, "report", 1, 1);
    nyb_arena_clear(&arena);
    json_decref(report);
    return status;
}
