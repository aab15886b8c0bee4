#pragma once
// A page of figures in Prometheus' text format (0.0.4), written by prometheus-cpp. Families come in
// the order in which they are begun, and values in the order in which they are put.

#include "metrics/histogram.h"

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace pgchaperone::metrics {

class Page {
public:
    Page();
    ~Page();
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;

    // All that is put goes to the family that was begun last. A counter's name ends in _total.
    enum class Type : std::uint8_t { counter, gauge, histogram };
    Page& begin(Type type, std::string_view name, std::string_view help);

    using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;
    Page& put(double value, Labels labels = {});
    // Of a histogram; in seconds.
    Page& put(const Distribution& distribution, Labels labels = {});

    std::string text() const;
    static constexpr std::string_view content_type = "text/plain; version=0.0.4; charset=utf-8";

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgchaperone::metrics
