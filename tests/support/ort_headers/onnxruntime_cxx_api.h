// The part of ONNX Runtime's C++ API that examples/cpp uses, for machines that have its library (Python's wheel holds
// one) and not its headers. It is not the real header and is used by a test only.
//
// The C API is a table of functions whose order never changes; members are named by their place in it, as
// onnxruntime_c_api.h of ONNX Runtime 1.22 has them. The classes have the names and arguments of the C++ API's
// documentation.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING = 2 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };

extern "C" {
struct OrtApiBase {
  const void* (*GetApi)(uint32_t version) noexcept;
  const char* (*GetVersionString)() noexcept;
};
const OrtApiBase* OrtGetApiBase() noexcept;
}

namespace Ort {

enum Place {
  kGetErrorMessage = 2, kCreateEnv = 3, kCreateSession = 7, kRun = 9, kCreateSessionOptions = 10,
  kSetIntraOpNumThreads = 24, kCreateTensorWithData = 49, kGetTensorMutableData = 51, kGetElementCount = 64,
  kGetTypeAndShape = 65, kCreateCpuMemoryInfo = 69, kReleaseEnv = 92, kReleaseStatus = 93, kReleaseMemoryInfo = 94,
  kReleaseSession = 95, kReleaseValue = 96, kReleaseShape = 99, kReleaseSessionOptions = 100
};

template <typename Result, typename... Arguments>
Result call(Place place, Arguments... arguments) {
  static const auto* table = static_cast<void* const*>(OrtGetApiBase()->GetApi(22));
  return reinterpret_cast<Result (*)(Arguments...)>(table[place])(arguments...);
}

struct Exception : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Arguments>
void check(Place place, Arguments... arguments) {
  void* status = call<void*>(place, arguments...);
  if (status == nullptr) return;
  const std::string said = call<const char*>(kGetErrorMessage, static_cast<const void*>(status));
  call<void>(kReleaseStatus, status);
  throw Exception(said);
}

template <Place release>
struct Owner {
  void* held = nullptr;
  Owner() = default;
  Owner(Owner&& other) noexcept : held(std::exchange(other.held, nullptr)) {}
  Owner& operator=(Owner&& other) noexcept {
    std::swap(held, other.held);
    return *this;
  }
  ~Owner() {
    if (held != nullptr) call<void>(release, held);
  }
};

template <typename T> struct Kind;
template <> struct Kind<float> { static constexpr int number = 1; };
template <> struct Kind<uint8_t> { static constexpr int number = 2; };
template <> struct Kind<uint16_t> { static constexpr int number = 4; };
template <> struct Kind<int64_t> { static constexpr int number = 7; };

struct Env : Owner<kReleaseEnv> {
  Env(OrtLoggingLevel level, const char* name) { check(kCreateEnv, int(level), name, &held); }
};
struct SessionOptions : Owner<kReleaseSessionOptions> {
  SessionOptions() { check(kCreateSessionOptions, &held); }
  SessionOptions& SetIntraOpNumThreads(int threads) {
    check(kSetIntraOpNumThreads, held, threads);
    return *this;
  }
};
struct RunOptions {
  explicit RunOptions(std::nullptr_t) {}
};
struct MemoryInfo : Owner<kReleaseMemoryInfo> {
  static MemoryInfo CreateCpu(OrtAllocatorType allocator, OrtMemType type) {
    MemoryInfo made;
    check(kCreateCpuMemoryInfo, int(allocator), int(type), &made.held);
    return made;
  }
};
struct TensorTypeAndShapeInfo : Owner<kReleaseShape> {
  size_t GetElementCount() const {
    size_t count = 0;
    check(kGetElementCount, static_cast<const void*>(held), &count);
    return count;
  }
};
struct Value : Owner<kReleaseValue> {
  template <typename T>
  static Value CreateTensor(const MemoryInfo& memory, T* data, size_t count, const int64_t* shape, size_t rank) {
    Value made;
    check(kCreateTensorWithData, static_cast<const void*>(memory.held), static_cast<void*>(data), count * sizeof(T),
          shape, rank, Kind<T>::number, &made.held);
    return made;
  }
  template <typename T>
  const T* GetTensorData() const {
    void* data = nullptr;
    check(kGetTensorMutableData, held, &data);
    return static_cast<const T*>(data);
  }
  TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const {
    TensorTypeAndShapeInfo found;
    check(kGetTypeAndShape, static_cast<const void*>(held), &found.held);
    return found;
  }
};
struct Session : Owner<kReleaseSession> {
  Session(const Env& env, const char* path, const SessionOptions& options) {
    check(kCreateSession, static_cast<const void*>(env.held), path, static_cast<const void*>(options.held), &held);
  }
  std::vector<Value> Run(const RunOptions&, const char* const* names, const Value* inputs, size_t count,
                         const char* const* wanted, size_t n) {
    std::vector<const void*> given;
    for (size_t i = 0; i < count; ++i) given.push_back(inputs[i].held);
    std::vector<void*> made(n, nullptr);
    check(kRun, held, static_cast<const void*>(nullptr), names, given.data(), count, wanted, n, made.data());
    std::vector<Value> found(n);
    for (size_t i = 0; i < n; ++i) found[i].held = made[i];
    return found;
  }
};

}  // namespace Ort
