#pragma once
// The files of the page, as they were when this was built.

#include <span>
#include <string_view>

namespace pgchaperone::web {

struct Asset {
    std::string_view path;  // "/app.js"
    std::string_view content_type;
    std::string_view text;
};
std::span<const Asset> assets();
const Asset* find_asset(std::string_view path);

}  // namespace pgchaperone::web
