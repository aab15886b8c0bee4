#include "proxy/session/settings.h"

#include <algorithm>
#include <utility>

namespace pgchaperone::session {

namespace {

// A list of identifiers, quoted or not, as in the setting search_path. None where it can't be read,
// or where it names "$user", which stands for whatever role is in force.
std::optional<std::vector<std::string>> identifiers(std::string_view list) {
    std::vector<std::string> out;
    while (!list.empty()) {
        list.remove_prefix(std::min(list.find_first_not_of(" ,"), list.size()));
        if (list.empty()) break;
        std::string name;
        if (list.front() == '"') {
            list.remove_prefix(1);
            while (true) {
                const std::size_t quote = list.find('"');
                if (quote == std::string_view::npos) return std::nullopt;
                name += list.substr(0, quote);
                list.remove_prefix(quote + 1);
                if (list.empty() || list.front() != '"') break;
                name += '"';
                list.remove_prefix(1);
            }
        } else {
            const std::size_t end = std::min(list.find_first_of(" ,"), list.size());
            for (const char c : list.substr(0, end)) {
                name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
            }
            list.remove_prefix(end);
        }
        if (name == "$user") return std::nullopt;
        out.push_back(std::move(name));
    }
    return out;
}

}  // namespace

bool Settings::reported(std::string_view name, std::string_view value) {
    using policy::StandardConformingStrings;
    if (name == "standard_conforming_strings") {
        current_.standard_conforming_strings = value == "on" ? StandardConformingStrings::on
                                                             : StandardConformingStrings::off;
    } else if (name == "client_encoding") {
        current_.client_encoding = std::string(value);
    } else if (name == "server_encoding") {
        server_encoding_ = value;
    } else if (name == "search_path") {
        search_path_ = identifiers(value);
    } else if (name == "application_name") {
        application_name_ = value;
        return true;
    }
    return false;
}

const std::optional<std::vector<std::string>>& Settings::search_path() const {
    return doubtful_until_ != 0 ? unknown_path_ : search_path_;
}

policy::LexicalSettings Settings::lexical() const {
    if (doubtful_until_ != 0) return {policy::StandardConformingStrings::unknown, std::nullopt};
    return current_;
}

}  // namespace pgchaperone::session
