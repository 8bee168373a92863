// dtype_driver.c - number formats on the command line, for tests that compare them with other
// programs. Not installed.
//
//   dtype_driver widen TYPE < values of TYPE > f32 values
//   dtype_driver narrow TYPE < f32 values > values of TYPE
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"

enum { STEP = 1024 }; // values at once

int main(int argc, char **argv)
{
    nyb_dtype dtype = NYB_DTYPE_COUNT;
    if (argc != 3 || !nyb_dtype_by_name(argv[2], &dtype) ||
        !(nyb_dtype_is_float(dtype) || nyb_dtype_is_float8(dtype)))
        return 2;
    const bool widen = strcmp(argv[1], "widen") == 0;
    const size_t size = nyb_dtype_bytes(dtype);
    float values[STEP];
    unsigned char stored[STEP * sizeof(float)];
    size_t count = 0;
    while ((count = fread(widen ? (void *) stored : values, widen ? size : sizeof(float), STEP,
                          stdin)) > 0) {
        if (widen)
            nyb_widen(values, stored, dtype, count);
        else
            nyb_narrow(stored, dtype, values, count);
        if (fwrite(widen ? (void *) values : stored, widen ? sizeof(float) : size, count, stdout) !=
            count)
            return 1;
    }
    return 0;
}
