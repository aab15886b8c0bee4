// A program with one fault, which its argument names, for the proof that a sanitizer's report is
// noticed (tests/e2e/sanitizer_reports.py). Only built with sanitizers.

#include <climits>
#include <string_view>
#include <thread>

namespace {

volatile int sink = 0;

void read_freed() {
    int* volatile value = new int(1);
    delete value;
    sink = *value;
}

void overflow() {
    volatile int most = INT_MAX;
    sink = most + 1;
}

void leak() {
    int* volatile value = new int(1);
    sink = *value;
    value = nullptr;
}

int shared = 0;

void race() {
    std::thread other([] {
        for (int i = 0; i < 1000; ++i) ++shared;
    });
    for (int i = 0; i < 1000; ++i) ++shared;
    other.join();
    sink = shared;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view fault = argc > 1 ? argv[1] : "";
    if (fault == "read_freed") read_freed();
    if (fault == "overflow") overflow();
    if (fault == "leak") leak();
    if (fault == "race") race();
    return 0;
}
