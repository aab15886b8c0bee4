#pragma once
// Answers that say why not, as RFC 9457 has them.

#include "approval/ticket.h"
#include "web/http.h"

#include <string>
#include <string_view>

namespace pgchaperone::web {

// `title`: a sentence for people, without the final stop.
Response problem(unsigned status, std::string_view title, std::string_view detail = {},
                 std::string_view hint = {}, std::string_view sqlstate = {});
// What a ticket, the desk or its store refuses.
Response problem(const approval::Failure& failure);
unsigned status_of(approval::Problem problem);

}  // namespace pgchaperone::web
