#pragma once
// What an attempt to deliver has come to, and when the next one is due. Pure: chance is handed in.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace pgchaperone::webhook {

// `again`: it may go well later. `never`: this receiver does not want this message.
enum class Outcome { delivered, again, never };
Outcome outcome_of(long status);  // of an answer by HTTP

inline constexpr std::chrono::milliseconds retry_first{1'000};
inline constexpr std::chrono::milliseconds retry_last{5 * 60'000};
// A receiver may ask for more patience than that, but not for more than this.
inline constexpr std::chrono::milliseconds retry_after_max{60 * 60'000};

// How long to wait behind so many failures in a row (1 or more). `chance` from 0 to 1 spreads
// those who wait for the same receiver: it takes away up to half. `asked`: Retry-After.
std::chrono::milliseconds retry_delay(unsigned failures, double chance,
                                      std::optional<std::chrono::seconds> asked);

// For the log: "answered 400: invalid_payload". Of the answer no more than a name of an error, in
// small letters: receivers repeat what they were sent, and that may hold what gives the right to
// write there.
std::string answer_text(long status, std::string_view beginning);

}  // namespace pgchaperone::webhook
