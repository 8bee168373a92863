// regrid.h - the same numbers on another grid: scales of another type, or of other blocks.
#ifndef NYB_CALIB_REGRID_H_
#define NYB_CALIB_REGRID_H_

#include "formats/layout.h"

// Gives q the scales that the layout stores, where that changes no weight.
//
// NYB_E_UNSUPPORTED  it would; err names the module, both values and the way out. q is still the
//                    caller's to clear.
NYB_NODISCARD nyb_status nyb_regrid(nyb_qweight *q, const nyb_layout *layout, const char *module,
                                    nyb_err *err);

#endif // NYB_CALIB_REGRID_H_
