// Runs full.onnx of a folder that `adaptiveisp export` wrote: the bytes of a headerless frame go in, boxes come out.
// Header only, C++17; it needs the ONNX Runtime C++ API and nothing else. docs/export.md describes manifest.json.
#pragma once
#include <onnxruntime_cxx_api.h>

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace adaptiveisp {

// A value of JSON. Texts keep their escapes but for \" and \\, which suffices for a manifest.
struct Json {
  std::string text;  // of a text, a number, true, false or null
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& key) const {
    auto found = members.find(key);
    if (found == members.end()) throw std::runtime_error("manifest.json: has no " + key + "; export the folder again");
    return found->second;
  }
  bool is_null() const { return text == "null" && items.empty() && members.empty(); }
  double number() const { return std::strtod(text.c_str(), nullptr); }
  int64_t integer() const { return static_cast<int64_t>(number()); }

  static Json parse(const std::string& all) {
    size_t place = 0;
    return parse(all, place, 0);
  }

 private:
  static void skip(const std::string& all, size_t& place) {
    while (place < all.size() && (std::isspace(static_cast<unsigned char>(all[place])) || all[place] == ',' || all[place] == ':'))
      ++place;
  }
  static Json parse(const std::string& all, size_t& place, int depth) {
    skip(all, place);
    if (place >= all.size() || depth > 64) throw std::runtime_error("manifest.json: is not JSON; export the folder again");
    Json found;
    const char first = all[place];
    if (first == '{' || first == '[') {
      for (skip(all, ++place); place < all.size() && all[place] != '}' && all[place] != ']'; skip(all, place)) {
        Json value = parse(all, place, depth + 1);
        if (first == '[') found.items.push_back(value);
        else found.members[value.text] = parse(all, place, depth + 1);
      }
      ++place;
    } else if (first == '"') {
      while (++place < all.size() && all[place] != '"') {
        if (all[place] == '\\') ++place;
        if (place < all.size()) found.text += all[place];
      }
      ++place;
    } else {
      while (place < all.size() && std::string(",]} \n\r\t").find(all[place]) == std::string::npos) found.text += all[place++];
    }
    return found;
  }
};

inline std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + ": cannot be read; check the path");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// Whether the numbers of frame.format describe a layout that `unpack` reads without leaving a row or the frame.
inline bool is_readable(const Json& form) {
  auto number = [&form](const char* key, double least) {
    const double value = form[key].number();
    return value >= least && value <= 1e9 && value == static_cast<double>(static_cast<int64_t>(value));
  };
  if (!number("bits", 8) || !number("group_values", 1) || !number("group_bytes", 1) || !number("offset", 0) ||
      !number("container_bits", 0) || !(form["row_bytes"].is_null() || number("row_bytes", 1)))
    return false;
  const std::string layout = form["layout"].text;
  const int64_t bits = form["bits"].integer(), values = form["group_values"].integer(), size = form["group_bytes"].integer();
  const int64_t container = form["container_bits"].integer(), spare = size - values;
  if (layout == "whole") return container % 8 == 0 && container <= 32 && values == 1 && 8 * size == container && bits <= container;
  if (layout == "csi2") return bits > 8 && bits <= 16 && spare > 0 && spare <= 4 && (bits - 8) * values <= 8 * spare;
  if (layout == "gige") return bits <= 12 && values == 2 && size == 3;
  return bits <= 32;
}

// The code values of a frame, row by row; `form` is frame.format of the manifest.
inline std::vector<uint32_t> unpack(const std::string& bytes, const Json& form, int64_t height, int64_t width) {
  if (!is_readable(form)) throw std::runtime_error("manifest.json: frame.format is not valid; export the folder again");
  const std::string layout = form["layout"].text;
  const int64_t bits = form["bits"].integer(), group = form["group_values"].integer(), size = form["group_bytes"].integer();
  const int64_t used = layout == "lsb" ? (width * bits + 7) / 8 : (width + group - 1) / group * size;
  const int64_t step = form["row_bytes"].is_null() ? used : form["row_bytes"].integer();
  const int64_t offset = form["offset"].integer(), needed = offset + (height - 1) * step + used;
  if (step < used)
    throw std::runtime_error("manifest.json: frame.format.row_bytes = " + std::to_string(step) + ", but a row takes " +
                             std::to_string(used) + " bytes; export the folder again");
  if (const int64_t have = static_cast<int64_t>(bytes.size()); have < needed || have >= offset + height * step + used)
    throw std::runtime_error("the frame has " + std::to_string(bytes.size()) + " bytes, " + std::to_string(needed) +
                             " are needed; check size and format");
  const int64_t container = form["container_bits"].integer(), low = bits - 8;
  const bool big = form["big_endian"].text == "true", high = form["high_bits"].text == "true";
  std::vector<uint32_t> values(static_cast<size_t>(height * width));
  for (int64_t y = 0; y < height; ++y) {
    const auto* row = reinterpret_cast<const uint8_t*>(bytes.data()) + offset + y * step;
    for (int64_t x = 0; x < width; ++x) {
      const uint8_t* at = row + x / group * size;
      uint32_t value = 0;
      if (layout == "whole") {
        for (int64_t i = 0; i < container / 8; ++i) value |= uint32_t(at[big ? container / 8 - 1 - i : i]) << (8 * i);
        if (high) value >>= container - bits;
      } else if (layout == "csi2") {
        const int64_t first = x % group * low;  // place of its low bits after the high bytes
        uint32_t tail = at[group + first / 8];
        if (group + first / 8 + 1 < size) tail |= uint32_t(at[group + first / 8 + 1]) << 8;
        value = uint32_t(at[x % group]) << low | (tail >> (first % 8) & ((1u << low) - 1));
      } else if (layout == "lsb") {
        for (int64_t i = 0; i < bits; ++i) value |= uint32_t(row[(x * bits + i) / 8] >> ((x * bits + i) % 8) & 1) << i;
      } else if (layout == "gige") {
        value = x % 2 ? uint32_t(at[2]) << low | (uint32_t(at[1]) >> 4 & ((1u << low) - 1))
                      : uint32_t(at[0]) << low | (at[1] & ((1u << low) - 1));
      } else {
        throw std::runtime_error("frame format " + layout + " is unknown; update adaptiveisp.hpp");
      }
      values[static_cast<size_t>(y * width + x)] = value;
    }
  }
  return values;
}

struct Box {
  float x0, y0, x1, y1, score;  // pixels of the upright full frame
  std::string name;
};

// What the export has not fixed; the manifest says what is needed.
struct Facts {
  int64_t width = 0, height = 0;
  std::string pattern;
  std::vector<float> black_level, white_level;  // black: four, row by row, or one for all
};

class Session {
 public:
  explicit Session(const std::string& folder, int threads = 0)
      : manifest_(Json::parse(read_file(folder + "/manifest.json"))), env_(ORT_LOGGING_LEVEL_WARNING, "adaptiveisp") {
    if (manifest_["format"].text != "adaptiveisp-export" || manifest_["format_version"].integer() != 1)
      throw std::runtime_error(folder + "/manifest.json: is of another format or version; update adaptiveisp.hpp");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    const std::string graph = folder + "/" + manifest_["graphs"]["full"]["file"].text;
    session_ = std::make_unique<Ort::Session>(env_, graph.c_str(), options);
  }

  std::vector<Box> operator()(const std::string& bytes, const Facts& facts = {}) {
    const Json &frame = manifest_["frame"], &classes = manifest_["detector"]["class_names"];
    if (frame["kind"].text != "mosaic" || frame["format"].is_null())
      throw std::runtime_error("this export takes no headerless mosaic; export with --input mosaic and --raw-format");
    const int64_t height = frame["height"].is_null() ? facts.height : frame["height"].integer();
    const int64_t width = frame["width"].is_null() ? facts.width : frame["width"].integer();
    if (height < 1 || width < 1) throw std::runtime_error("this export takes frames of any size; give width and height");
    const std::vector<uint32_t> values = unpack(bytes, frame["format"], height, width);
    std::vector<uint8_t> bytes8(values.begin(), values.end());
    std::vector<uint16_t> words(values.begin(), values.end());
    std::vector<float> black = facts.black_level, white = facts.white_level;
    if (black.size() == 1) black.assign(4, black[0]);
    check(frame["pattern"].is_null() || facts.pattern.empty() || facts.pattern == frame["pattern"].text, "pattern");
    check(black.empty() || frame["black_level"].is_null() || black == numbers(frame["black_level"]), "black_level");
    check(white.empty() || frame["white_level"].is_null() || white == numbers(frame["white_level"]), "white_level");
    for (float level : black)
      if (!(level >= 0 && (white.size() != 1 || level < white[0])))
        throw std::runtime_error("0 <= black level < white level must hold; check the levels");
    int64_t pattern = -1;
    for (size_t i = 0; i < frame["patterns"].items.size(); ++i)
      if (frame["patterns"].items[i].text == facts.pattern) pattern = static_cast<int64_t>(i);

    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::vector<int64_t> sides{height, width}, four{4}, one{1};
    std::vector<const char*> names;
    std::vector<Ort::Value> inputs;
    for (const Json& input : manifest_["graphs"]["full"]["inputs"].items) {
      const std::string& name = input["name"].text;
      names.push_back(name.c_str());
      if (name == "frame" && frame["dtype"].text == "uint8") inputs.push_back(tensor(memory, bytes8, sides));
      else if (name == "frame") inputs.push_back(tensor(memory, words, sides));
      else if (name == "black_level" && black.size() == 4) inputs.push_back(tensor(memory, black, four));
      else if (name == "white_level" && white.size() == 1) inputs.push_back(tensor(memory, white, one));
      else if (name == "pattern" && pattern >= 0)
        inputs.push_back(Ort::Value::CreateTensor<int64_t>(memory, &pattern, 1, nullptr, 0));
      else throw std::runtime_error("the export has not fixed " + name + ", and it was not given or is not valid");
    }
    const char* wanted[] = {"boxes", "scores", "labels"};
    auto found = session_->Run(Ort::RunOptions{nullptr}, names.data(), inputs.data(), inputs.size(), wanted, 3);
    const size_t count = found[1].GetTensorTypeAndShapeInfo().GetElementCount();
    const float *boxes = found[0].GetTensorData<float>(), *scores = found[1].GetTensorData<float>();
    const int64_t* labels = found[2].GetTensorData<int64_t>();
    std::vector<Box> results;
    for (size_t i = 0; i < count; ++i, boxes += 4)
      results.push_back({boxes[0], boxes[1], boxes[2], boxes[3], scores[i], classes.items.at(size_t(labels[i])).text});
    return results;
  }

 private:
  static void check(bool agrees, const std::string& fact) {
    if (!agrees) throw std::runtime_error("the export has fixed another " + fact + "; leave it out, or export for yours");
  }
  static std::vector<float> numbers(const Json& value) {
    if (value.items.empty()) return {static_cast<float>(value.number())};
    std::vector<float> found;
    for (const Json& item : value.items) found.push_back(static_cast<float>(item.number()));
    return found;
  }
  template <typename T>
  static Ort::Value tensor(const Ort::MemoryInfo& memory, std::vector<T>& values, const std::vector<int64_t>& shape) {
    return Ort::Value::CreateTensor<T>(memory, values.data(), values.size(), shape.data(), shape.size());
  }

  Json manifest_;
  Ort::Env env_;
  std::unique_ptr<Ort::Session> session_;
};

}  // namespace adaptiveisp
