/*
 * status.h: what a call of lorica.h ends with, and the lines that it logs. Included by lorica.h; the library's own
 * sources include this and not the whole interface.
 */
#ifndef LORICA_STATUS_H
#define LORICA_STATUS_H

typedef enum lorica_status {
    LORICA_OK = 0,
    LORICA_ERROR_INVALID_ARGUMENT = 1, /* a value out of range, a NULL where none may be, a handle misused */
    LORICA_ERROR_IO = 2,               /* a file cannot be opened, read, written, renamed; errno is in the message */
    LORICA_ERROR_FORMAT = 3,           /* a file is damaged or is not what it claims to be */
    LORICA_ERROR_UNSUPPORTED = 4,      /* a sound file or request that this build cannot serve */
    LORICA_ERROR_OUT_OF_MEMORY = 5,    /* the plan does not fit, or an allocation failed */
    LORICA_ERROR_DEVICE = 6,           /* the device is missing or a kernel failed */
    LORICA_ERROR_NON_FINITE = 7,       /* a loss or gradient is NaN or infinite; the message names step and layer */
    LORICA_ERROR_MISMATCH = 8,         /* two sound things that do not fit: adapter and base, state and session */
    LORICA_ERROR_INTERNAL = 9,         /* a defect of this library */
    LORICA_ERROR_CANCELLED = 10        /* another thread asked for it, by one of the functions that cancel */
} lorica_status;

typedef enum lorica_log_level { LORICA_LOG_DEBUG = 0, LORICA_LOG_INFO = 1, LORICA_LOG_WARN = 2 } lorica_log_level;

/* `message` is one line without a line break, valid during the call. May be called from any thread. */
typedef void (*lorica_log_callback)(lorica_log_level level, const char * message, void * user_data);

#endif /* LORICA_STATUS_H */
