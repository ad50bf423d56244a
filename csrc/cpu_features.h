// Features of the processor that decide which kernels onnxruntime uses.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace seewhy {

// Returns the features that this process can use, the baseline first, or nothing if the processor is not known here.
// On x86-64 these are among sse2, avx2, avx512f, avx512_vnni, avx_vnni and amx_int8, by the tests of onnxruntime; on
// ARM64 among neon, dotprod and i8mm. The processor itself is asked where it can be: an emulator may hide features that
// the operating system lists.
std::optional<std::vector<std::string>> cpu_features();

}  // namespace seewhy
