// JSON written as text. Values of nlohmann's that hold others are not made on the way: their destructor
// allocates, so that the process would end where there is no memory for it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace fourfold::formats {

// Of a scalar. Throws nlohmann::json::type_error where a text is not UTF-8.
inline std::string json_text(const nlohmann::json& scalar) { return scalar.dump(); }

// An object or a list, put together from the texts of what it holds.
class JsonText {
 public:
  static JsonText object() { return JsonText('{', '}'); }
  static JsonText list() { return JsonText('[', ']'); }

  void add(const std::string& value) {
    if (text_.size() > 1) text_ += ',';
    text_ += value;
  }
  void add(const std::string& key, const std::string& value) {  // of an object
    add(json_text(key));
    text_ += ':' + value;
  }
  std::string text() && {
    text_ += close_;
    return std::move(text_);
  }

 private:
  JsonText(char open, char close) : text_(1, open), close_(close) {}
  std::string text_;
  char close_;
};

}  // namespace fourfold::formats
