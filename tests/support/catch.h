#pragma once
// Catch2 under one name, whichever major version the system has. Where the two spell a thing
// differently, tests use the spelling of version 3, and version 2 is taught it here.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>

#include <string>

namespace Catch::Matchers {
inline auto ContainsSubstring(const std::string& text) { return Contains(text); }
}  // namespace Catch::Matchers
#endif
