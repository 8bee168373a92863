// status.h - how every fallible function of nybble reports what went wrong.
//
// A fallible function returns nyb_status and takes `nyb_err *err` last. `err` may be NULL. On
// success it is left alone; on failure it holds one line without a full stop that names what
// was wrong (the file, the tensor, the value found and the value wanted).
#ifndef NYB_STATUS_H_
#define NYB_STATUS_H_

#if defined(__GNUC__)
#define NYB_API       __attribute__((visibility("default")))
#define NYB_NODISCARD __attribute__((warn_unused_result))
#else
#define NYB_API
#define NYB_NODISCARD
#endif

typedef enum nyb_status {
    NYB_OK = 0,
    NYB_E_ARG,         // an argument or option is outside its range
    NYB_E_SHAPE,       // two shapes that have to agree do not
    NYB_E_FORMAT,      // a file's content breaks its format
    NYB_E_IO,          // the operating system refused a file operation
    NYB_E_NOMEM,       // memory ran out, or a stated ceiling is too low
    NYB_E_NOT_PD,      // a matrix is not positive definite
    NYB_E_NUMERIC,     // a NaN or infinity where a number is needed
    NYB_E_UNSUPPORTED, // well-formed, but nybble or the asked-for layout cannot hold it
    NYB_E_EXISTS,      // the output is already there
    NYB_E_VERIFY,      // what was read back is not what was computed
    NYB_STATUS_COUNT
} nyb_status;

typedef struct nyb_err {
    nyb_status status;
    char text[1024]; // NUL-terminated UTF-8, cut at the end when longer
} nyb_err;

// The status as a short word, for example "format". Never NULL.
NYB_API const char *nyb_status_name(nyb_status status);

#endif // NYB_STATUS_H_
