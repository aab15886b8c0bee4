#pragma once
// Names of relations as text: read as the server reads the argument of a function that takes a
// relation's name, and shown to people. Knows no parse tree.

#include "policy/facts.h"

#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::policy {

// The name in a text that the server reads as regclass: `orders`, `Public."Order Items"`; folded
// as outside of quotes. Nothing for an object id and for what is no name.
std::optional<RelationName> relation_from_text(std::string_view text);

// "public.orders", unquoted; "public.*" for every relation of a schema, "*" for every one at all.
std::string relation_text(const RelationName& name);

}  // namespace pgchaperone::policy
