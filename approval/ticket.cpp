#include "approval/ticket.h"

#include <stdexcept>

namespace pgchaperone::approval {

std::string_view state_name(State state) {
    switch (state) {
        case State::pending: return "pending";
        case State::approved: return "approved";
        case State::denied: return "denied";
        case State::expired: return "expired";
        case State::withdrawn: return "withdrawn";
        case State::used: return "used";
    }
    return {};
}

void throw_exception_from_error(const Failure& failure, const boost::source_location&) {
    throw std::runtime_error(failure.text);
}

}  // namespace pgchaperone::approval
