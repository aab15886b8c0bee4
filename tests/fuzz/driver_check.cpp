// A target that fails now and then, to show that the driver tells by which seed (CMakeLists.txt).

#include "fuzz/driver.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size > 20 && data[10] < 2) std::abort();
    return 0;
}

std::string pgchaperone_fuzz_seed(pgchaperone::test::Random& random) { return random.bytes(30); }
