# TLS without sockets: nothing of the session, of Asio or of the configuration.
add_library(pgchaperone_tls STATIC
    ${CMAKE_CURRENT_LIST_DIR}/tls_channel.cpp
    ${CMAKE_CURRENT_LIST_DIR}/tls_context.cpp
    ${CMAKE_CURRENT_LIST_DIR}/tls_words.cpp)
target_link_libraries(pgchaperone_tls PUBLIC Boost::headers OpenSSL::SSL OpenSSL::Crypto)
