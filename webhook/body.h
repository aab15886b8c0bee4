#pragma once
// What a message says: the body for one hook, from what happened to a ticket. Pure.
//
// Whatever people have written into statements, names and comments, a body is valid UTF-8 and, but
// for plain text, valid JSON. What hides or turns text is shown as <U+202E>, and nothing mentions a
// channel, makes a link or leaves its code block. The statement goes out only where the hook says
// so: what receives this is somebody else's server.

#include "webhook/hook.h"

#include <string>

namespace pgchaperone::webhook {

inline constexpr int body_version = 1;  // of Format::json
inline constexpr std::size_t statement_characters = 2000;

std::string body_of(const Hook& hook, const approval::Happened& happened, const Envelope& envelope);

// "UPDATE waits for approval", for people; nothing in it but the command is anybody's choice.
std::string headline(const approval::Happened& happened);

}  // namespace pgchaperone::webhook
