#pragma once
// What a fuzz target shares with the driver that stands in for libFuzzer where there is none.

#include "support/random.h"

#include <cstddef>
#include <cstdint>
#include <string>

// The target: takes any bytes, and aborts where something that must hold does not.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// An input that makes sense, for the driver to corrupt. Used only by the driver.
std::string pgchaperone_fuzz_seed(pgchaperone::test::Random& random);
