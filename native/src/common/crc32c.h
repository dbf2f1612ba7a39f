// CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of files that lorica writes for itself.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lorica {

// Continues `crc`, the checksum of the bytes before (0: none), over n more bytes. crc32c(0, "123456789", 9) =
// 0xe3069283.
uint32_t crc32c(uint32_t crc, const void * data, size_t n);

}  // namespace lorica
