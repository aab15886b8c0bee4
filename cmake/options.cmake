# Compiler and linker settings for every target of the project. Presets (CMakePresets.json) choose among them.

option(PGCHAPERONE_WARNINGS_AS_ERRORS "Treat compiler warnings as errors" OFF)
option(PGCHAPERONE_HARDEN "Build with the compiler's hardening flags" ON)
option(PGCHAPERONE_FUZZ "Build the libFuzzer targets in tests/fuzz (clang only)" OFF)
set(PGCHAPERONE_SANITIZE "" CACHE STRING
    "Value for -fsanitize=, for example address,undefined or thread; empty: none")

get_property(multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(NOT CMAKE_BUILD_TYPE AND NOT multi_config)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

# A dead guard beats a wrong one: assertions stay on, so no build type defines NDEBUG.
foreach(type RELEASE RELWITHDEBINFO MINSIZEREL)
    foreach(language C CXX)
        string(REGEX REPLACE "[-/]DNDEBUG" "" CMAKE_${language}_FLAGS_${type}
            "${CMAKE_${language}_FLAGS_${type}}")
    endforeach()
endforeach()
add_compile_definitions(_GLIBCXX_ASSERTIONS)

set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include_directories("${CMAKE_SOURCE_DIR}" "${CMAKE_BINARY_DIR}/generated")

add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wcast-qual -Wimplicit-fallthrough
    $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>)
if(PGCHAPERONE_WARNINGS_AS_ERRORS)
    add_compile_options(-Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # These are wrong in g++ 12 about inlined std::string and std::optional, and about the frames of
    # Asio's coroutines.
    add_compile_options(-Wno-maybe-uninitialized -Wno-restrict
        $<$<COMPILE_LANGUAGE:CXX>:-Wno-mismatched-new-delete>)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # Partly initialised aggregates are how defaults are written here; g++ does not mind either.
    add_compile_options(-Wno-missing-field-initializers)
endif()

include(CheckCXXCompilerFlag)
include(CheckLinkerFlag)

if(PGCHAPERONE_SANITIZE)
    add_compile_options(-fsanitize=${PGCHAPERONE_SANITIZE} -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${PGCHAPERONE_SANITIZE})
    if(PGCHAPERONE_SANITIZE MATCHES "undefined" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # As shared libraries these two do not agree on where reports go: some are lost to log_path.
        add_link_options(-static-libasan -static-libubsan)
    endif()
    if(PGCHAPERONE_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # Boost and the standard library use fences here and there, which this sanitizer cannot follow.
        add_compile_options(-Wno-tsan)
    endif()
    # A fortified libc hides from the sanitizers what they are here to see.
elseif(PGCHAPERONE_HARDEN)
    add_compile_options(-fstack-protector-strong)
    foreach(flag -fstack-clash-protection -fcf-protection)
        string(MAKE_C_IDENTIFIER "has${flag}" has)
        check_cxx_compiler_flag(${flag} ${has})
        if(${has})
            add_compile_options(${flag})
        endif()
    endforeach()
    # Fortifying needs optimisation; without it glibc only warns.
    add_compile_options($<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE>
        $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
    add_link_options(-Wl,-z,relro -Wl,-z,now)
endif()

if(PGCHAPERONE_FUZZ)
    if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "PGCHAPERONE_FUZZ needs clang: use `cmake --preset fuzz`.")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link)
    add_link_options(-fsanitize=fuzzer-no-link)
endif()

# The fastest linker that is there and that this compiler can drive.
set(PGCHAPERONE_LINKER "" CACHE STRING "Value for -fuse-ld=; empty: mold, else lld, else the default")
if(PGCHAPERONE_LINKER)
    add_link_options(-fuse-ld=${PGCHAPERONE_LINKER})
else()
    foreach(linker mold lld)
        check_linker_flag(CXX -fuse-ld=${linker} has_linker_${linker})
        if(has_linker_${linker})
            add_link_options(-fuse-ld=${linker})
            break()
        endif()
    endforeach()
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
    set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()
