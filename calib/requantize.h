// requantize.h - other weights on the kind of grid that a quantised layer has.
#ifndef NYB_CALIB_REQUANTIZE_H_
#define NYB_CALIB_REQUANTIZE_H_

#include "nybble/context.h"
#include "nybble/qweight.h"

// Rounds w [rows, cols] to nearest with the bits, groups, order of columns, symmetry and type of
// scales that `like` has; scales and zero points are those that w needs. w is left in another order
// of columns where `like` has one.
//
//   lowest_zero  of the layout that it will be stored in
//
// NYB_E_UNSUPPORTED  scales lie in blocks that nybble does not round to, or groups differ in size.
// Others as nyb_round_nearest(). On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_requantize(const nyb_context *ctx, nyb_qweight *out,
                                        const nyb_qweight *like, nyb_mat w, unsigned lowest_zero,
                                        nyb_err *err);

#endif // NYB_CALIB_REQUANTIZE_H_
