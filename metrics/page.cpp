#include "metrics/page.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <cassert>
#include <limits>
#include <sstream>
#include <vector>

namespace pgchaperone::metrics {

namespace {

prometheus::MetricType library_type(Page::Type type) {
    switch (type) {
        case Page::Type::counter: return prometheus::MetricType::Counter;
        case Page::Type::gauge: return prometheus::MetricType::Gauge;
        case Page::Type::histogram: return prometheus::MetricType::Histogram;
    }
    return prometheus::MetricType::Untyped;
}

double seconds(Nanoseconds time) { return std::chrono::duration<double>(time).count(); }

prometheus::ClientMetric labelled(Page::Labels labels) {
    prometheus::ClientMetric metric;
    for (const auto& [name, value] : labels) {
        // To Prometheus a label without a value is none.
        if (value.empty()) continue;
        metric.label.push_back({std::string(name), std::string(value)});
    }
    return metric;
}

}  // namespace

struct Page::Impl {
    std::vector<prometheus::MetricFamily> families;
};

Page::Page() : impl_(std::make_unique<Impl>()) {}

Page::~Page() = default;

Page& Page::begin(Type type, std::string_view name, std::string_view help) {
    prometheus::MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = library_type(type);
    impl_->families.push_back(std::move(family));
    return *this;
}

Page& Page::put(double value, Labels labels) {
    prometheus::MetricFamily& family = impl_->families.back();
    prometheus::ClientMetric metric = labelled(labels);
    if (family.type == prometheus::MetricType::Counter) {
        metric.counter.value = value;
    } else {
        assert(family.type == prometheus::MetricType::Gauge);
        metric.gauge.value = value;
    }
    family.metric.push_back(std::move(metric));
    return *this;
}

Page& Page::put(const Distribution& distribution, Labels labels) {
    prometheus::MetricFamily& family = impl_->families.back();
    assert(family.type == prometheus::MetricType::Histogram);
    prometheus::ClientMetric metric = labelled(labels);
    std::uint64_t so_far = 0;
    for (std::size_t i = 0; i < distribution.counts.size(); ++i) {
        so_far += distribution.counts[i];
        const bool bounded = i < distribution.bounds.size();
        metric.histogram.bucket.push_back({so_far, bounded
                                                       ? seconds(distribution.bounds[i])
                                                       : std::numeric_limits<double>::infinity()});
    }
    metric.histogram.sample_count = so_far;
    metric.histogram.sample_sum = seconds(distribution.sum);
    family.metric.push_back(std::move(metric));
    return *this;
}

std::string Page::text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, impl_->families);
    return std::move(out).str();
}

}  // namespace pgchaperone::metrics
