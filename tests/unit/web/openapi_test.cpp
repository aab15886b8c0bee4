// The description of the API against what is served, and what the page is made of.
#include "support/catch.h"
#include "web/app.h"
#include "web/assets.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>
#include <string>

using namespace pgchaperone::web;

namespace {

YAML::Node description() { return YAML::Load(std::string(find_asset("/api/openapi.yaml")->text)); }

// Every $ref under a node.
void references(const YAML::Node& node, std::set<std::string>& out) {
    if (node.IsMap()) {
        for (const auto& entry : node) {
            if (entry.first.as<std::string>() == "$ref") out.insert(entry.second.as<std::string>());
            references(entry.second, out);
        }
    } else if (node.IsSequence()) {
        for (const auto& entry : node) references(entry, out);
    }
}

}  // namespace

TEST_CASE("openapi.yaml describes what is served, and nothing else") {
    std::set<std::string> described, served;
    for (const std::string& route : App::routes()) served.insert(route);
    const YAML::Node paths = description()["paths"];
    for (const auto& path : paths) {
        for (const auto& method : path.second) {
            std::string name = method.first.as<std::string>();
            std::transform(name.begin(), name.end(), name.begin(),
                           [](char c) { return static_cast<char>(c - 'a' + 'A'); });
            described.insert(name + " " + path.first.as<std::string>());
            INFO(name << " " << path.first.as<std::string>());
            CHECK(method.second["responses"].size() >= 1);
            CHECK(method.second["operationId"].IsDefined());
        }
    }
    CHECK(described == served);
}

TEST_CASE("every reference in openapi.yaml leads somewhere") {
    const YAML::Node root = description();
    std::set<std::string> all;
    references(root, all);
    CHECK(all.size() > 10);
    for (const std::string& reference : all) {
        INFO(reference);
        REQUIRE(reference.starts_with("#/"));
        YAML::Node node = YAML::Clone(root);
        std::string rest = reference.substr(2);
        while (!rest.empty()) {
            const auto slash = std::min(rest.find('/'), rest.size());
            node = YAML::Clone(node[rest.substr(0, slash)]);
            rest.erase(0, std::min(slash + 1, rest.size()));
        }
        CHECK(node.IsDefined());
        CHECK_FALSE(node.IsNull());
    }
}

TEST_CASE("the page needs nothing that its Content-Security-Policy forbids") {
    CHECK(find_asset("/") != nullptr);
    CHECK(find_asset("/app.js") != nullptr);
    for (const Asset& asset : assets()) {
        if (asset.path == "/api/openapi.yaml") continue;
        INFO(asset.path);
        CHECK(asset.text.size() < 64 * 1024);
        for (const char* forbidden :
             {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"",
              "onclick=", "javascript:"}) {
            INFO(forbidden);
            CHECK(asset.text.find(forbidden) == std::string_view::npos);
        }
        // Nothing comes from elsewhere.
        CHECK(asset.text.find("src=\"http") == std::string_view::npos);
        CHECK(asset.text.find("href=\"http") == std::string_view::npos);
    }
}
