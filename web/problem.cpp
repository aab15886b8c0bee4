#include "web/problem.h"

#include "web/json_out.h"

#include <utility>

namespace pgchaperone::web {

Response problem(unsigned status, std::string_view title, std::string_view detail,
                 std::string_view hint, std::string_view sqlstate) {
    JsonOut out;
    out.open('{').text("title", title).number("status", status);
    out.text_if("detail", detail).text_if("hint", hint).text_if("sqlstate", sqlstate).close('}');
    Response response;
    response.status = status;
    response.content_type = "application/problem+json";
    response.body = std::move(out).take();
    return response;
}

unsigned status_of(approval::Problem problem) {
    switch (problem) {
        case approval::Problem::unknown_ticket: return 404;
        case approval::Problem::not_allowed:
        case approval::Problem::own_ticket: return 403;
        case approval::Problem::already_decided:
        case approval::Problem::already_voted:
        case approval::Problem::changed_since: return 409;
        case approval::Problem::store_failed: return 503;
    }
    return 500;
}

Response problem(const approval::Failure& failure) {
    return problem(status_of(failure.problem), failure.text, {}, failure.hint,
                   approval::sqlstate(failure.problem));
}

}  // namespace pgchaperone::web
