#pragma once
// A store of tickets that could not be reached when the process began. A guard that does not start
// because the place of its tickets is down would take everything down with it; so it starts, what
// needs an approval is refused, and whoever uses the store (the desk) opens it later by trying
// again.

#include "approval/store.h"

#include <functional>
#include <memory>
#include <string>

namespace pgchaperone::net {

// `open` opens it, on the thread that uses the store; `failure`: why that did not work just now.
// Until it does, every call but check() answers with the last failure, and check() tries again.
using OpenStore = std::function<approval::Result<std::unique_ptr<approval::Store>>()>;
std::unique_ptr<approval::Store> late_store(OpenStore open, approval::Failure failure);

}  // namespace pgchaperone::net
