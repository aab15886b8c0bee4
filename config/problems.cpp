#include "config/problems.h"

#include <algorithm>
#include <numeric>
#include <ostream>
#include <sstream>

namespace pgchaperone::config {
namespace {

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c == '-' ? '_' : c;
}

// Insertions, deletions, replacements and swaps of neighbours between two words, letters in either
// case.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
    for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
            d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1])) {
                d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
            }
        }
    }
    return d[a.size()][b.size()];
}

std::string line_of(const std::string& text, int line) {
    std::istringstream in(text);
    std::string result;
    for (int i = 0; i < line; ++i) {
        if (!std::getline(in, result)) return {};
    }
    if (!result.empty() && result.back() == '\r') result.pop_back();
    return result;
}

// What may be a password, in a URI or behind a key that says so, whatever else is wrong with the
// line. As long as before, so that the mark below stands right.
void cover_password(std::string& line) {
    if (const auto scheme = line.find("://"); scheme != std::string::npos) {
        const auto at = line.rfind('@');
        if (at != std::string::npos && at > scheme + 3)
            line.replace(scheme + 3, at - scheme - 3, std::string(at - scheme - 3, '*'));
    }
    std::string lower = line;
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    for (std::size_t at = 0; (at = lower.find("passw", at)) != std::string::npos; ++at) {
        const auto sign = lower.find('=', at);
        if (sign == std::string::npos) break;
        for (std::size_t i = sign + 1; i < line.size(); ++i)
            if (line[i] != ' ') line[i] = '*';
        break;
    }
}

std::string head(const Problem& problem) {
    const std::string place = problem.place.text();
    return place + (place.empty() ? "" : ": ") +
           (problem.severity == Problem::Severity::error ? "error: " : "warning: ") +
           problem.message;
}

}  // namespace

void Problems::error(policy::Place place, std::string message, std::string advice) {
    list_.push_back(
        {Problem::Severity::error, std::move(place), std::move(message), std::move(advice)});
}

void Problems::warning(policy::Place place, std::string message, std::string advice) {
    list_.push_back(
        {Problem::Severity::warning, std::move(place), std::move(message), std::move(advice)});
}

std::size_t Problems::error_count() const {
    return static_cast<std::size_t>(std::count_if(list_.begin(), list_.end(), [](const Problem& p) {
        return p.severity == Problem::Severity::error;
    }));
}

std::vector<const Problem*> Problems::in_order() const {
    std::vector<const Problem*> sorted;
    for (const Problem& problem : list_) sorted.push_back(&problem);
    std::stable_sort(sorted.begin(), sorted.end(), [](const Problem* a, const Problem* b) {
        return std::tie(a->place.file, a->place.line, a->place.column) <
               std::tie(b->place.file, b->place.line, b->place.column);
    });
    return sorted;
}

void Problems::print(std::ostream& out) const {
    for (const Problem* problem : in_order()) {
        out << head(*problem) << '\n';
        const auto text = texts_.find(problem->place.file);
        if (text != texts_.end() && problem->place.line > 0) {
            std::string line = line_of(text->second, problem->place.line);
            cover_password(line);
            for (const std::string& secret : hidden_) {
                // As long as before, so that the mark below stands right.
                for (std::size_t at = 0; (at = line.find(secret, at)) != std::string::npos;
                     at += secret.size())
                    line.replace(at, secret.size(), std::string(secret.size(), '*'));
            }
            if (!line.empty()) {
                const std::string number = std::to_string(problem->place.line);
                const auto column = static_cast<std::size_t>(std::max(problem->place.column, 1)) -
                                    1;
                out << "  " << number << " | " << line << '\n';
                out << std::string(number.size() + 2, ' ') << " | ";
                for (std::size_t i = 0; i < column && i < line.size(); ++i) {
                    // A tab under a tab; continuation bytes of UTF-8 take no room.
                    if ((static_cast<unsigned char>(line[i]) & 0xc0U) != 0x80)
                        out << (line[i] == '\t' ? '\t' : ' ');
                }
                out << "^\n";
            }
        }
        if (!problem->advice.empty()) out << "    " << problem->advice << '\n';
    }
}

std::string Problems::text() const {
    std::ostringstream out;
    print(out);
    return out.str();
}

std::string Problems::first_error() const {
    for (const Problem* problem : in_order()) {
        if (problem->severity != Problem::Severity::error) continue;
        const std::size_t more = error_count() - 1;
        return head(*problem) + (more == 0 ? "" : " (and " + std::to_string(more) + " more)");
    }
    return {};
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
    std::string best;
    std::size_t best_distance = word.size() / 3 + 2;
    if (word.size() > 64) return {};
    for (const std::string& candidate : candidates) {
        const std::size_t d = distance(word, candidate);
        if (d < best_distance && d < candidate.size()) {
            best = candidate;
            best_distance = d;
        }
    }
    return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
    const std::string best = nearest(word, candidates);
    return best.empty() ? std::string() : "did you mean \"" + best + "\"?";
}

}  // namespace pgchaperone::config
