#include <stdio.h>

#include "nybble/version.h"

int main(void)
{
    const nyb_build_info info = nyb_build();
    printf("nybble %s\n%s\n%s\n", info.version, info.blas, info.blas_core);
    return 0;
}
