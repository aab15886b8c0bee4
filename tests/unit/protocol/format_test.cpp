// Every message written by hand from the page "Message Formats", so that a mistake that encoder and
// decoder share is seen here. Each row also pins how people see the message.

#include "bytes.h"

#include "protocol/codec.h"
#include "protocol/dumper.h"
#include "protocol/startup.h"
#include "support/catch.h"

#include <set>

namespace pgchaperone::protocol {

using pgchaperone::test::bytes;

namespace {

struct Sample {
    const char* notation;
    const char* line;
};

const Sample frontend_samples[] = {
    {"42 0000002a 'p' 00 's' 00 0001 0001 0003 00000002 'ab' ffffffff 00000000 0002 0000 0001"
     " 00000000 00000000",
     nullptr},  // see below: a Bind whose length is right, with bytes left over
    {"42 00000022 'p' 00 's' 00 0001 0001 0003 00000002 'ab' ffffffff 00000000 0002 0000 0001",
     R"(Bind portal="p" statement="s" parameter_formats=[1])"
     R"( parameters=["ab", NULL, ""] result_formats=[0, 1])"},
    {"43 00000008 'Sst' 00", R"(Close kind='S' name="st")"},
    {"64 00000006 'a' 0a", R"(CopyData data="a\n")"},
    {"63 00000004", "CopyDone"},
    {"66 00000009 'why?' 00", R"(CopyFail message="why?")"},
    {"44 00000007 'Px' 00", R"(Describe kind='P' name="x")"},
    {"45 0000000a 'c' 00 00000064", R"(Execute portal="c" max_rows=100)"},
    {"48 00000004", "Flush"},
    {"46 00000019 000003b9 0001 0001 0002 00000001 'x' ffffffff 0001",
     R"(FunctionCall function_oid=953 argument_formats=[1] arguments=["x", NULL] result_format=1)"},
    {"50 0000001a 's1' 00 'SELECT 1' 00 0002 00000017 00000000",
     R"(Parse statement="s1" query="SELECT 1" parameter_types=[23, 0])"},
    {"70 0000000c 'hunter2' 00", "PasswordMessage password=(hidden)"},
    {"70 00000019 'SCRAM-SHA-256' 00 00000003 'n,,'",
     R"(SASLInitialResponse mechanism="SCRAM-SHA-256" data=(hidden))"},
    {"70 00000016 'SCRAM-SHA-256' 00 ffffffff",
     R"(SASLInitialResponse mechanism="SCRAM-SHA-256" data=NULL)"},
    {"70 00000009 'c=biw'", "SASLResponse data=(hidden)"},
    {"51 0000000d 'SELECT 1' 00", R"(Query query="SELECT 1")"},
    {"53 00000004", "Sync"},
    {"58 00000004", "Terminate"},
};

const Sample startup_samples[] = {
    {"00000010 04d2162e 000004d2 deadbeef",
     "CancelRequest process_id=1234 secret_key=(hidden, 4 bytes)"},
    {"00000014 04d2162e 000004d2 deadbeef00112233",
     "CancelRequest process_id=1234 secret_key=(hidden, 8 bytes)"},
    {"00000008 04d21630", "GSSENCRequest"},
    {"00000008 04d2162f", "SSLRequest"},
    {"00000022 00030002 'user' 00 'joe' 00 '_pq_.x' 00 'on' 00 00 00 00 00 00 00", nullptr},
    {"0000001c 00030002 'user' 00 'joe' 00 '_pq_.x' 00 'on' 00 00",
     R"(StartupMessage protocol_version=3.2 parameters=["user" "joe", "_pq_.x" "on"])"},
};

const Sample backend_samples[] = {
    {"52 00000008 00000000", "AuthenticationOk"},
    {"52 00000008 00000002", "AuthenticationKerberosV5"},
    {"52 00000008 00000003", "AuthenticationCleartextPassword"},
    {"52 0000000c 00000005 01020304", "AuthenticationMD5Password salt=0x01020304"},
    {"52 00000008 00000006", "AuthenticationSCMCredential"},
    {"52 00000008 00000007", "AuthenticationGSS"},
    {"52 0000000b 00000008 'tok'", "AuthenticationGSSContinue data=(hidden)"},
    {"52 00000008 00000009", "AuthenticationSSPI"},
    {"52 0000002a 0000000a 'SCRAM-SHA-256-PLUS' 00 'SCRAM-SHA-256' 00 00",
     R"(AuthenticationSASL mechanisms=["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])"},
    {"52 0000000d 0000000b 'r=abc'", "AuthenticationSASLContinue data=(hidden)"},
    {"52 0000000d 0000000c 'v=abc'", "AuthenticationSASLFinal data=(hidden)"},
    {"4b 0000000c 000004d2 deadbeef",
     "BackendKeyData process_id=1234 secret_key=(hidden, 4 bytes)"},
    {"32 00000004", "BindComplete"},
    {"33 00000004", "CloseComplete"},
    {"43 0000000d 'SELECT 5' 00", R"(CommandComplete command_tag="SELECT 5")"},
    {"57 00000007 00 0000", "CopyBothResponse overall_format=0 column_formats=[]"},
    {"64 00000008 00 ff 01 02", "CopyData data=0x00ff0102"},
    {"63 00000004", "CopyDone"},
    {"47 0000000b 00 0002 0000 0000", "CopyInResponse overall_format=0 column_formats=[0, 0]"},
    {"48 00000009 01 0001 0001", "CopyOutResponse overall_format=1 column_formats=[1]"},
    {"44 00000010 0002 00000002 '42' ffffffff", R"(DataRow columns=["42", NULL])"},
    {"49 00000004", "EmptyQueryResponse"},
    {"45 00000017 'SERROR' 00 'C42501' 00 'Mno' 00 00",
     R"(ErrorResponse fields=['S' "ERROR", 'C' "42501", 'M' "no"])"},
    {"56 0000000a 00000002 'ok'", R"(FunctionCallResponse result="ok")"},
    {"56 00000008 ffffffff", "FunctionCallResponse result=NULL"},
    {"76 00000013 00030000 00000001 '_pq_.x' 00",
     R"(NegotiateProtocolVersion newest_version=3.0 unrecognized_options=["_pq_.x"])"},
    {"6e 00000004", "NoData"},
    {"4e 00000009 'Mhi' 00 00", R"(NoticeResponse fields=['M' "hi"])"},
    {"41 0000000f 000004d2 'ch' 00 'msg' 00",
     R"(NotificationResponse process_id=1234 channel="ch" payload="msg")"},
    {"74 0000000a 0001 00000017", "ParameterDescription parameter_types=[23]"},
    {"53 00000016 'TimeZone' 00 'Etc/UTC' 00 00", nullptr},
    {"53 00000015 'TimeZone' 00 'Etc/UTC' 00",
     R"(ParameterStatus parameter="TimeZone" value="Etc/UTC")"},
    {"31 00000004", "ParseComplete"},
    {"73 00000004", "PortalSuspended"},
    {"5a 00000005 'T'", "ReadyForQuery transaction_status='T'"},
    {"54 0000001b 0001 'id' 00 00004000 0001 00000017 0004 ffffffff 0000",
     R"(RowDescription columns=[name="id" table_oid=16384 column_number=1 type_oid=23)"
     R"( type_size=4 type_modifier=-1 format=0])"},
};

// Decodes and encodes whichever messages of the list the bytes are; returns how many those are.
template <class List>
int encode_again(std::string_view body, std::string_view whole, std::set<std::string_view>& seen) {
    int kinds = 0;
    List::for_each([&]<class M>() {
        if constexpr (has_tag<M>) {
            char tag = static_cast<char>(M::tag);
            if (tag != whole[0]) return;
        }
        const Result<M> message = decode<M>(body);
        if (!message) return;
        ++kinds;
        seen.insert(name_of<M>());
        CHECK(encoded(*message) == whole);
    });
    return kinds;
}

template <class List, std::size_t N>
void check_samples(const Sample (&samples)[N], Side side, bool startup) {
    std::set<std::string_view> seen;
    for (const Sample& sample : samples) {
        INFO(sample.notation);
        const std::string whole = bytes(sample.notation);
        const std::string_view body = std::string_view{whole}.substr(startup ? 4 : 5);
        const int kinds = encode_again<List>(body, whole, seen);
        if (sample.line == nullptr) {
            CHECK(kinds == 0);
            continue;
        }
        CHECK(kinds >= 1);
        CHECK((startup ? dump_startup(whole) : dump(side, whole)) == sample.line);
    }
    List::for_each([&]<class M>() {
        INFO(name_of<M>());
        CHECK(seen.count(name_of<M>()) == 1);
    });
}

}  // namespace

TEST_CASE("messages of the frontend are read, written and shown as documented") {
    check_samples<FrontendMessages>(frontend_samples, Side::frontend, false);
}

TEST_CASE("packets of the startup phase are read, written and shown as documented") {
    check_samples<StartupPackets>(startup_samples, Side::frontend, true);
}

TEST_CASE("messages of the backend are read, written and shown as documented") {
    check_samples<BackendMessages>(backend_samples, Side::backend, false);
}

TEST_CASE("fields come out under their names") {
    const std::string bind_body = bytes(
        "'p' 00 's' 00 0001 0001 0002 00000002 'ab' ffffffff 0001 0000");
    const Result<Bind> bind = decode<Bind>(bind_body);
    REQUIRE(bind.has_value());
    CHECK(bind->portal == "p");
    CHECK(bind->statement == "s");
    CHECK(bind->parameter_formats == std::vector<Int16>{1});
    CHECK(bind->parameters.at(0) == "ab");
    CHECK_FALSE(bind->parameters.at(1).has_value());
    CHECK(bind->result_formats == std::vector<Int16>{0});

    const std::string error_body = bytes("'SFEHLER' 00 'VERROR' 00 'C42501' 00 'Mno' 00 00");
    const Result<ErrorResponse> error = decode<ErrorResponse>(error_body);
    REQUIRE(error.has_value());
    CHECK(error->find('C') == "42501");
    CHECK(error->find('V') == "ERROR");
    CHECK_FALSE(error->find('H').has_value());
}

TEST_CASE("every fault of a body has its own error") {
    CHECK(decode<Query>("SELECT 1").error() == Error::unterminated_string);
    CHECK(decode<Query>(bytes("'a' 00 'b' 00")).error() == Error::trailing_bytes);
    CHECK(decode<Sync>("x").error() == Error::trailing_bytes);
    CHECK(decode<ReadyForQuery>("").error() == Error::truncated);
    CHECK(decode<AuthenticationOk>(bytes("00000001")).error() == Error::unexpected_code);
    CHECK(decode<BackendKeyData>(bytes("00000001 010203")).error() == Error::invalid_key_length);
    CHECK(decode<BackendKeyData>(bytes("00000001") + std::string(257, 'k')).error() ==
          Error::invalid_key_length);
    CHECK(decode<BackendKeyData>(bytes("00000001") + std::string(256, 'k')).has_value());
    CHECK(decode<ErrorResponse>(bytes("'Mx' 00")).error() == Error::missing_terminator);
    CHECK(decode<DataRow>(bytes("0002 00000001")).error() == Error::truncated);
    CHECK(decode<DataRow>(bytes("0001 fffffffe")).error() == Error::invalid_value_length);
    CHECK(decode<DataRow>(bytes("ffff ffffffff")).error() == Error::invalid_count);
    CHECK(decode<NegotiateProtocolVersion>(bytes("00030000 ffffffff")).error() ==
          Error::invalid_count);
    CHECK(decode<NegotiateProtocolVersion>(bytes("00030000 7fffffff 00")).error() ==
          Error::invalid_count);
}

TEST_CASE("what cannot be read back is not written, and nothing is left behind") {
    std::string out = "before";
    CHECK(encode(Query{std::string_view{"a\0b", 3}}, out).error() == Error::embedded_zero);
    CHECK(encode(AuthenticationSASL{{"A", "", "B"}}, out).error() == Error::embedded_zero);
    CHECK(encode(ErrorResponse{{{{'\0', "x"}}}}, out).error() == Error::embedded_zero);
    CHECK(encode(StartupMessage{3 << 16, {{"", "x"}}}, out).error() == Error::embedded_zero);
    CHECK(encode(BackendKeyData{1, "abc"}, out).error() == Error::invalid_key_length);
    CHECK(encode(AuthenticationMD5Password{"12345"}, out).error() == Error::invalid_length);
    CHECK(encode(Describe{'S', std::string(10'000, 'n')}, out).error() == Error::message_too_long);
    const ParameterDescription too_many{std::vector<Int32>(65'536, 23)};
    CHECK(encode(too_many, out).error() == Error::too_many_elements);
    CHECK(out == "before");
}

TEST_CASE("65,535 parameters pass, as they do in PostgreSQL") {
    Bind bind;
    bind.parameters.assign(65'535, Value{"x"});
    const std::string message = encoded(bind);
    const Result<Bind> again = decode<Bind>(std::string_view{message}.substr(5));
    REQUIRE(again.has_value());
    CHECK(again->parameters.size() == 65'535);

    ParameterDescription description{std::vector<Int32>(65'535, 23)};
    const std::string described = encoded(description);
    CHECK(decode<ParameterDescription>(std::string_view{described}.substr(5))
              ->parameter_types.size() == 65'535);
}

}  // namespace pgchaperone::protocol
