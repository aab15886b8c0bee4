# Where the libraries come from: the distribution, and libpg_query as cmake/pg_query.cmake says.
# `tools/deps build` installs all of them on Debian and its relatives.

# Newer CMakes leave finding Boost to Boost.
if(POLICY CMP0167)
    cmake_policy(SET CMP0167 NEW)
endif()

find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS json)
find_package(OpenSSL 3 REQUIRED)
find_package(CURL 7.87 REQUIRED)  # CURLOPT_QUICK_EXIT
find_package(PostgreSQL REQUIRED)  # libpq only
find_package(SQLite3 3.35 REQUIRED)  # RETURNING
find_package(ZLIB REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(simdjson REQUIRED)
find_package(date REQUIRED)
include(pg_query)
