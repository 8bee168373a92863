// report_name.h - where a run says what it did, in the folder that it made.
#ifndef NYB_CALIB_REPORT_NAME_H_
#define NYB_CALIB_REPORT_NAME_H_

#define NYB_REPORT_NAME "nybble_report.json"

#endif // NYB_CALIB_REPORT_NAME_H_
