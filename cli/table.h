#pragma once
// A table for the terminal. Knows no rows and no tickets; what it is given must be fit to be shown
// (cli/terminal.h).

#include "cli/terminal.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace pgchaperone::cli {

// Below this a column says nothing any more.
inline constexpr std::size_t statement_min_columns = 24;
inline constexpr std::size_t shrunk_min_columns = 12;

struct Cell {
    std::string text;  // may be shown as it is
    Ink ink = Ink::plain;
};

// A table of columns with two spaces between them. Where it is too wide, the last column is cut
// first, then the others that may shrink, the widest first.
class Table {
public:
    explicit Table(std::vector<std::string> headings) {
        std::vector<Cell> first;
        for (std::string& heading : headings) first.push_back({std::move(heading), Ink::faint});
        lines_.push_back(std::move(first));
    }
    void add(std::vector<Cell> line) { lines_.push_back(std::move(line)); }
    // A column in which every line is empty says nothing.
    void drop_empty() {
        for (std::size_t c = lines_[0].size(); c-- > 0;) {
            const bool empty = std::all_of(
                lines_.begin() + 1, lines_.end(),
                [c](const std::vector<Cell>& line) { return line[c].text.empty(); });
            if (!empty) continue;
            for (auto& line : lines_) line.erase(line.begin() + static_cast<std::ptrdiff_t>(c));
        }
    }

    std::string text(const Look& look) const {
        const std::vector<std::size_t> widths = widths_for(look.width);
        std::string out;
        for (const auto& line : lines_) {
            for (std::size_t c = 0; c < line.size(); ++c) {
                const bool last = c + 1 == line.size();
                const std::string shown = look.width > 0 ? cut(line[c].text, widths[c])
                                                         : line[c].text;
                out += inked(shown, line[c].ink, look);
                const std::size_t taken = columns_of(shown);
                if (!last && taken < widths[c]) out.append(widths[c] - taken, ' ');
                if (!last) out += "  ";
            }
            while (!out.empty() && out.back() == ' ') out.pop_back();
            out += '\n';
        }
        return out;
    }

private:
    std::vector<std::size_t> widths_for(std::size_t limit) const {
        std::vector<std::size_t> widths(lines_[0].size());
        for (const auto& line : lines_) {
            for (std::size_t c = 0; c < line.size(); ++c)
                widths[c] = std::max(widths[c], columns_of(line[c].text));
        }
        if (limit == 0) return widths;
        std::size_t total = 2 * (widths.size() - 1);
        for (const std::size_t width : widths) total += width;
        const auto shrink = [&](std::size_t c, std::size_t least) {
            if (total <= limit || widths[c] <= least) return;
            const std::size_t by = std::min(total - limit, widths[c] - least);
            widths[c] -= by;
            total -= by;
        };
        shrink(widths.size() - 1, statement_min_columns);
        while (total > limit) {
            const auto widest = std::max_element(widths.begin(), widths.end() - 1);
            if (widest == widths.end() - 1 || *widest <= shrunk_min_columns) break;
            shrink(static_cast<std::size_t>(widest - widths.begin()),
                   std::max(shrunk_min_columns, *widest - std::min(*widest, total - limit)));
        }
        shrink(widths.size() - 1, 1);
        return widths;
    }

    std::vector<std::vector<Cell>> lines_;
};

}  // namespace pgchaperone::cli
