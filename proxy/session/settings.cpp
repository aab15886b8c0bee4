#include "proxy/session/settings.h"

namespace pgchaperone::session {

bool Settings::reported(std::string_view name, std::string_view value) {
    using policy::StandardConformingStrings;
    if (name == "standard_conforming_strings") {
        current_.standard_conforming_strings =
            value == "on" ? StandardConformingStrings::on : StandardConformingStrings::off;
    } else if (name == "client_encoding") {
        current_.client_encoding = std::string(value);
    } else if (name == "application_name") {
        application_name_ = value;
        return true;
    }
    return false;
}

policy::LexicalSettings Settings::lexical() const {
    if (doubtful_until_ != 0) return {policy::StandardConformingStrings::unknown, std::nullopt};
    return current_;
}

}  // namespace pgchaperone::session
