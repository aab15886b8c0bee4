#include "webhook/url.h"

#include "approval/visible_text.h"

#include <curl/curl.h>

#include <memory>

namespace pgchaperone::webhook {
namespace {

constexpr std::size_t url_bytes_max = 4096;

using Handle = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

std::string part(CURLU* url, CURLUPart which) {
    char* text = nullptr;
    if (curl_url_get(url, which, &text, 0) != CURLUE_OK || !text) return {};
    std::string out(text);
    curl_free(text);
    return out;
}

bool is_loopback(const std::string& host) {
    const bool four = host.starts_with("127.") &&
                      host.find_first_not_of("0123456789.") == std::string::npos;
    return host == "localhost" || host == "[::1]" || four;
}

}  // namespace

std::optional<Url> url_of(const std::string& text, std::string& problem) {
    const Handle url(curl_url(), &curl_url_cleanup);
    if (!url) throw std::bad_alloc();
    if (text.size() > url_bytes_max) {
        problem = "it is longer than " + std::to_string(url_bytes_max) + " bytes";
        return std::nullopt;
    }
    // A NUL would end it earlier for others than for us.
    if (text.find('\0') != std::string::npos ||
        curl_url_set(url.get(), CURLUPART_URL, text.c_str(), CURLU_NON_SUPPORT_SCHEME) !=
            CURLUE_OK) {
        problem = "this is no URL";
        return std::nullopt;
    }
    const std::string scheme = part(url.get(), CURLUPART_SCHEME);
    if (scheme != "http" && scheme != "https") {
        problem = "a webhook is sent by https or http";
        return std::nullopt;
    }
    if (!part(url.get(), CURLUPART_USER).empty() || !part(url.get(), CURLUPART_PASSWORD).empty()) {
        problem = "a URL with a user or a password in it ends up in logs";
        return std::nullopt;
    }
    Url out;
    const std::string host = part(url.get(), CURLUPART_HOST);
    const std::string port = part(url.get(), CURLUPART_PORT);
    out.host = approval::visible_line(port.empty() ? host : host + ":" + port);
    out.tls = scheme == "https";
    out.loopback = is_loopback(host);
    return out;
}

std::string origin_of(const std::string& text) {
    std::string problem;
    const auto url = url_of(text, problem);
    if (!url) return {};
    return (url->tls ? "https://" : "http://") + url->host;
}

}  // namespace pgchaperone::webhook
