#include <lorica/lorica.h>

const char * lorica_version(void) { return LORICA_VERSION; }
