#include "protocol/catalog.h"
#include "protocol/codec.h"
#include "support/catch.h"

#include <set>

namespace pgchaperone::protocol {

TEST_CASE("every struct has its tag in the catalog, on its side, under its name") {
    const auto check = [](Side side) {
        return [side]<class M>() {
            char tag = static_cast<char>(M::tag);
            if constexpr (requires { M::backend_tag; }) {
                if (side == Side::backend) tag = static_cast<char>(M::backend_tag);
            }
            const MessageKind* kind = find_kind(side, tag);
            INFO(name_of<M>());
            REQUIRE(kind != nullptr);
            CHECK(kind->side == side);
            CHECK(kind->tag == tag);
            if constexpr (!requires { M::message_name; }) CHECK(kind->name == name_of<M>());
        };
    };
    FrontendMessages::for_each(check(Side::frontend));
    BackendMessages::for_each(check(Side::backend));
}

TEST_CASE("every row of the catalog has a struct") {
    std::set<std::pair<Side, char>> with_struct;
    FrontendMessages::for_each(
        [&]<class M>() { with_struct.emplace(Side::frontend, static_cast<char>(M::tag)); });
    BackendMessages::for_each([&]<class M>() {
        if constexpr (requires { M::backend_tag; }) {
            with_struct.emplace(Side::backend, static_cast<char>(M::backend_tag));
        } else {
            with_struct.emplace(Side::backend, static_cast<char>(M::tag));
        }
    });
    for (const MessageKind& kind : catalog) {
        INFO(kind.name);
        CHECK(with_struct.count({kind.side, kind.tag}) == 1);
    }
}

TEST_CASE("a tag has one row, and tags without one are not found") {
    std::size_t found = 0;
    for (const Side side : {Side::frontend, Side::backend}) {
        for (int tag = 0; tag < 256; ++tag) {
            const MessageKind* kind = find_kind(side, static_cast<char>(tag));
            if (kind == nullptr) continue;
            ++found;
            CHECK(kind->side == side);
            CHECK(kind->tag == static_cast<char>(tag));
        }
    }
    CHECK(found == catalog.size());
    CHECK(find_kind(Side::frontend, 'Z') == nullptr);
    CHECK(find_kind(Side::backend, 'Q') == nullptr);
    CHECK(find_kind(Side::frontend, '\0') == nullptr);
    CHECK(find_kind(Side::backend, '\xFF') == nullptr);
}

TEST_CASE("the server's limits for what a frontend sends") {
    // As SocketBackend() has them in PostgreSQL 13 to 18.
    for (const char tag : {'X', 'C', 'D', 'E', 'H', 'S', 'c', 'f'}) {
        INFO(tag);
        CHECK(find_kind(Side::frontend, tag)->max_length == 10'000);
    }
    for (const char tag : {'Q', 'F', 'B', 'P', 'd'}) {
        INFO(tag);
        CHECK(find_kind(Side::frontend, tag)->max_length == 0x3FFFFFFE);
    }
    CHECK(find_kind(Side::frontend, 'p')->max_length == 65'535);
}

TEST_CASE("what libpq accepts as long from a server is long here") {
    for (const MessageKind& kind : catalog) {
        if (kind.side == Side::frontend) continue;
        INFO(kind.name);
        const bool long_for_libpq = std::string_view{"TDdVENA"}.find(kind.tag) !=
                                    std::string_view::npos;
        if (long_for_libpq) {
            CHECK(kind.max_length == limits::backend_large);
        } else {
            CHECK(kind.max_length >= 30'000);
            CHECK(kind.max_length <= 1 << 20);
        }
    }
}

}  // namespace pgchaperone::protocol
