# Finds libpg_query, PostgreSQL's own parser as a library, and makes the target pg_query::pg_query of it.
# The newest grammar wins: a system one of version 17 or newer; else the pinned release that
# `tools/deps build` has built; else an older one of the system, with a warning, because a server that is
# newer than the grammar reads statements that this one refuses as unparsable.
#
# The target defines PGCHAPERONE_GRAMMAR_VERSION, PostgreSQL's major version as a number. For the whole
# project this file sets pg_query_grammar_version ("17.4").

set(PGCHAPERONE_PG_QUERY_ROOT "" CACHE PATH
    "Prefix of a libpg_query (include/pg_query.h, lib/libpg_query.a) to use before any other")

# Sets ${result} to the grammar version that a pg_query.h declares ("17.4"), or to nothing.
function(pg_query_header_version header result)
    set(${result} "" PARENT_SCOPE)
    if(EXISTS "${header}")
        file(STRINGS "${header}" lines REGEX "^#define PG_VERSION \"")
        if(lines MATCHES "\"([0-9.]+)")
            set(${result} "${CMAKE_MATCH_1}" PARENT_SCOPE)
        endif()
    endif()
endfunction()

set(pg_query_header "")
set(pg_query_library "")
set(pg_query_grammar_version "")

# Takes what stands under the prefixes, if it is complete and at least of the given major version.
macro(pg_query_try minimum)
    if(NOT pg_query_library)
        unset(candidate_include)
        unset(candidate_library)
        find_path(candidate_include pg_query.h NO_CACHE ${ARGN})
        find_library(candidate_library NAMES libpg_query.a pg_query NO_CACHE ${ARGN})
        if(candidate_include AND candidate_library)
            pg_query_header_version("${candidate_include}/pg_query.h" candidate_version)
            if(candidate_version VERSION_GREATER_EQUAL ${minimum})
                set(pg_query_header "${candidate_include}")
                set(pg_query_library "${candidate_library}")
                set(pg_query_grammar_version "${candidate_version}")
            endif()
        endif()
    endif()
endmacro()

if(PGCHAPERONE_PG_QUERY_ROOT)
    pg_query_try(13 PATHS "${PGCHAPERONE_PG_QUERY_ROOT}" PATH_SUFFIXES include lib NO_DEFAULT_PATH)
    if(NOT pg_query_library)
        message(FATAL_ERROR "PGCHAPERONE_PG_QUERY_ROOT=${PGCHAPERONE_PG_QUERY_ROOT} holds no "
            "include/pg_query.h with lib/libpg_query.a.")
    endif()
endif()
pg_query_try(17)
file(GLOB pg_query_built "${CMAKE_SOURCE_DIR}/build/deps/libpg_query-*")
list(SORT pg_query_built COMPARE NATURAL ORDER DESCENDING)
foreach(prefix IN LISTS pg_query_built)
    pg_query_try(17 PATHS "${prefix}" PATH_SUFFIXES include lib NO_DEFAULT_PATH)
endforeach()
pg_query_try(13)

if(NOT pg_query_library)
    message(FATAL_ERROR "libpg_query is not here. Run `tools/deps build`, which builds or installs it, "
        "or give the prefix of one by -DPGCHAPERONE_PG_QUERY_ROOT=PREFIX.")
endif()
string(REGEX MATCH "^[0-9]+" pg_query_major "${pg_query_grammar_version}")
if(pg_query_major LESS 17)
    message(WARNING "libpg_query here knows PostgreSQL ${pg_query_major}'s grammar only: statements in newer "
        "syntax will be refused as unparsable. `tools/deps build` builds a newer one where it can be had.")
endif()
message(STATUS "libpg_query: grammar of PostgreSQL ${pg_query_grammar_version}, ${pg_query_library}")

add_library(pg_query::pg_query UNKNOWN IMPORTED)
set_target_properties(pg_query::pg_query PROPERTIES
    IMPORTED_LOCATION "${pg_query_library}"
    INTERFACE_INCLUDE_DIRECTORIES "${pg_query_header}"
    INTERFACE_COMPILE_DEFINITIONS "PGCHAPERONE_GRAMMAR_VERSION=${pg_query_major}"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
