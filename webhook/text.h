#pragma once
// Templates: text with {word} in it for what is known of a ticket. Braces around anything else than
// letters and underscores are nothing special, so that JSON can be written as it is. Pure.

#include "webhook/hook.h"

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::webhook {

// A word that a template may name.
struct TextWord {
    std::string_view word;
    std::string_view summary;
};
std::span<const TextWord> text_words();

// The words between braces, known or not, in their order.
std::vector<std::string> words_in(std::string_view text);

// The text with every {word} replaced by what `value_of` says of it, escaped for the inside of a
// JSON string where `json`. A word that it knows nothing of stays as it is.
std::string filled(std::string_view text, bool json,
                   const std::function<std::optional<std::string>(std::string_view)>& value_of);

// Why a template that is to be JSON is none, whatever is put in; nothing: it is.
std::optional<std::string> why_no_json(std::string_view text);

}  // namespace pgchaperone::webhook
