#pragma once
// JSON laid out for people and for version control: two spaces, one member a line.

#include <boost/json.hpp>

#include <string>

namespace pgchaperone::config {

std::string pretty(const boost::json::value& value);

}  // namespace pgchaperone::config
