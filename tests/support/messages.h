#pragma once
// Random messages of the protocol, from the same field visitors that encode and decode them.

#include "protocol/codec.h"
#include "support/random.h"

#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace pgchaperone::test {

// The field visitor that invents. What it put into a message lives as long as it does.
class FieldInventor {
public:
    explicit FieldInventor(Random& random) : random_(random) {}

    void byte1(std::string_view, char& x) { x = static_cast<char>(random_.between(1, 255)); }
    void int8(std::string_view, std::int8_t& x) { x = static_cast<std::int8_t>(number()); }
    void int16(std::string_view, std::int16_t& x) { x = static_cast<std::int16_t>(number()); }
    void int32(std::string_view, std::int32_t& x) { x = static_cast<std::int32_t>(number()); }
    void version(std::string_view, std::int32_t& x) { x = static_cast<std::int32_t>(number()); }
    void string(std::string_view, std::string_view& x) {
        // An empty string would end a list of strings.
        const std::size_t size = in_list_ ? random_.size() + 1 : random_.size();
        std::string text = random_.bytes(size);
        for (char& c : text) c = c == '\0' ? 'x' : c;
        x = keep(std::move(text));
    }
    void bytes(std::string_view, std::string_view& x) { x = keep(random_.bytes(random_.size())); }
    void fixed(std::string_view, std::string_view& x, std::size_t n) { x = keep(random_.bytes(n)); }
    void value(std::string_view, protocol::Value& x) {
        x.reset();
        if (!random_.one_in(4)) x = keep(random_.bytes(random_.size()));
    }
    void secret_string(std::string_view name, std::string_view& x) { string(name, x); }
    void secret_bytes(std::string_view name, std::string_view& x) { bytes(name, x); }
    void secret_value(std::string_view name, protocol::Value& x) { value(name, x); }
    void code(std::int32_t) {}
    void key(std::string_view, std::string_view& x) {
        x = keep(random_.bytes(random_.one_in(2) ? 4 : random_.between(4, 256)));
    }
    template <class T>
    void counted16(std::string_view, std::vector<T>& list) {
        invent_list(list);
    }
    template <class T>
    void counted32(std::string_view, std::vector<T>& list) {
        invent_list(list);
    }
    template <class T>
    void until_zero(std::string_view, std::vector<T>& list) {
        in_list_ = true;
        invent_list(list);
        in_list_ = false;
    }

private:
    std::uint64_t number() {
        const std::uint64_t edges[] = {0,      1,      ~std::uint64_t{0}, 0x7F,      0x80,
                                       0x7FFF, 0x8000, 0x7FFFFFFF,        0x80000000};
        return random_.one_in(2) ? edges[random_.below(std::size(edges))] : random_.next();
    }
    std::string_view keep(std::string text) { return kept_.emplace_back(std::move(text)); }
    template <class T>
    void invent_list(std::vector<T>& list) {
        list.resize(random_.one_in(3) ? 0 : random_.below(6));
        for (T& x : list) protocol::element(*this, x);
    }

    Random& random_;
    std::deque<std::string> kept_;
    bool in_list_ = false;
};

// A whole random message of a kind, encoded; never longer than its kind may be.
template <class M>
std::string random_message(Random& random) {
    while (true) {
        FieldInventor inventor{random};
        M message;
        M::visit(message, inventor);
        std::string bytes;
        if (protocol::encode(message, bytes)) return bytes;
    }
}

// A random message of any kind of a list of kinds.
template <class List>
std::string random_message_of(Random& random) {
    std::size_t kinds = 0;
    List::for_each([&]<class M>() { ++kinds; });
    const std::size_t chosen = random.below(kinds);
    std::size_t at = 0;
    std::string result;
    List::for_each([&]<class M>() {
        if (at++ == chosen) result = random_message<M>(random);
    });
    return result;
}

}  // namespace pgchaperone::test
