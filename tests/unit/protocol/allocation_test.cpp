// What the hot path reads must not allocate. Counts every allocation of this program.

#include "bytes.h"

#include "protocol/head.h"
#include "protocol/peek.h"
#include "protocol/startup.h"
#include "support/catch.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::size_t> allocations{0};
}

void* operator new(std::size_t size) {
    ++allocations;
    void* block = std::malloc(size == 0 ? 1 : size);
    if (block == nullptr) throw std::bad_alloc{};
    return block;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    ++allocations;
    return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }

namespace pgchaperone::protocol {

using pgchaperone::test::bytes;

namespace {

template <class F>
std::size_t allocations_of(F f) {
    const std::size_t before = allocations;
    f();
    return allocations - before;
}

template <class M>
void check_decode(std::string_view body) {
    bool ok = false;
    INFO(name_of<M>());
    CHECK(allocations_of([&] { ok = decode<M>(body).has_value(); }) == 0);
    CHECK(ok);
}

}  // namespace

TEST_CASE("the counter counts") {
    CHECK(allocations_of([] { CHECK(decode<DataRow>(bytes("0001 ffffffff")).has_value()); }) > 0);
}

TEST_CASE("what every query needs is read without allocating") {
    const std::string text = std::string(1000, 'q') + '\0';
    check_decode<Query>(text);
    check_decode<CommandComplete>(text);
    check_decode<Execute>(bytes("'portal' 00 00000000"));
    check_decode<Describe>(bytes("'Sname' 00"));
    check_decode<Close>(bytes("'Pname' 00"));
    check_decode<ReadyForQuery>("I");
    check_decode<ParameterStatus>(bytes("'name' 00 'value' 00"));
    check_decode<BackendKeyData>(bytes("00000001 00000002"));
    check_decode<Parse>(text + text + bytes("0000"));

    const std::string parse = text + text + bytes("0002 00000017 00000017");
    CHECK(allocations_of([&] { return peek_parse(parse).has_value(); }) == 0);
    CHECK(allocations_of([&] { return peek_bind(text + text).has_value(); }) >
          0);  // the sum, not the peek
    const std::string bind = text + text + bytes("0000 0001 00000001 'x' 0000");
    CHECK(allocations_of([&] { return peek_bind(bind).has_value(); }) == 0);
    const std::string error = bytes("'SERROR' 00 'C42501' 00 'Mno' 00 00");
    CHECK(allocations_of([&] { return peek_error_field(error, 'M').has_value(); }) == 0);
    CHECK(allocations_of([] { return read_head("S\0\0\0\4", Side::frontend).has_value(); }) == 0);
    CHECK(allocations_of([] { return rows_of("INSERT 0 5").has_value(); }) == 0);
}

TEST_CASE("a few bytes cannot make a decoder reserve much") {
    // A count of 65,535 or of two billion, with nothing behind it.
    CHECK(allocations_of([] {
              const std::string_view row{"\xFF\xFF", 2};
              return decode<DataRow>(row).has_value();
          }) == 0);
    CHECK(allocations_of([] {
              const std::string_view options{"\0\3\0\0\x7F\xFF\xFF\xFF", 8};
              return decode<NegotiateProtocolVersion>(options).has_value();
          }) == 0);
}

}  // namespace pgchaperone::protocol
