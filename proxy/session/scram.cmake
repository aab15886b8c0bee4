# SCRAM as pure computation, and the users whose passwords are checked here.
find_library(IDN_LIBRARY idn REQUIRED)
find_path(IDN_INCLUDE_DIR stringprep.h REQUIRED)
add_library(pgchaperone_scram STATIC
    ${CMAKE_CURRENT_LIST_DIR}/scram.cpp
    ${CMAKE_CURRENT_LIST_DIR}/scram_parts.cpp
    ${CMAKE_CURRENT_LIST_DIR}/scram_server.cpp
    ${CMAKE_CURRENT_LIST_DIR}/secret.cpp
    ${CMAKE_CURRENT_LIST_DIR}/users.cpp)
target_include_directories(pgchaperone_scram PRIVATE ${IDN_INCLUDE_DIR})
target_link_libraries(pgchaperone_scram
    PUBLIC Boost::headers OpenSSL::Crypto
    PRIVATE pgchaperone_protocol ${IDN_LIBRARY})
