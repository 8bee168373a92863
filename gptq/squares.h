// squares.h - matrices cut into squares that are packed on their own.
#ifndef NYB_GPTQ_SQUARES_H_
#define NYB_GPTQ_SQUARES_H_

#include <stddef.h>

enum { NYB_SQUARE = 256 };

// Squares in a row of a matrix of n columns; the last may be cut off.
static inline size_t nyb_squares(size_t n)
{
    return (n + NYB_SQUARE - 1) / NYB_SQUARE;
}

// The first of n columns behind that square.
static inline size_t nyb_square_end(size_t square, size_t n)
{
    return n - square * NYB_SQUARE < NYB_SQUARE ? n : (square + 1) * NYB_SQUARE;
}

#endif // NYB_GPTQ_SQUARES_H_
