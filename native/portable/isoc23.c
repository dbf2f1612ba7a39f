// Functions that newer headers of the C library put in the place of older ones, for objects that were compiled with
// them and are linked where they do not exist yet. They read "0b101" in bases 0 and 2 as well, which nobody here asks
// of them: what the kernel says of memory is read with them, and by the C++ runtime the environment variable
// GLIBCXX_TUNABLES.
#include <stdlib.h>

#define HIDDEN __attribute__((visibility("hidden")))

HIDDEN unsigned long __isoc23_strtoul(const char * text, char ** end, int base);
HIDDEN long long __isoc23_strtoll(const char * text, char ** end, int base);

unsigned long __isoc23_strtoul(const char * text, char ** end, int base) { return strtoul(text, end, base); }

long long __isoc23_strtoll(const char * text, char ** end, int base) { return strtoll(text, end, base); }
