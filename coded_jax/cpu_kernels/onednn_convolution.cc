// Convolutions of oneDNN as a custom call of XLA's CPU backend.
//
// One handler computes a convolution (kind 0), or its gradient by the images (1) or by
// the kernel (2); another a convolution with bias and perhaps ReLU. Arrays are float32;
// with `bfloat16` operands are rounded to that before they are multiplied, and products
// are summed in float32.
// Attributes give sizes and strides of images [N, C, H, W], kernel [O, I, P, Q] or
// [G, O/G, I/G, P, Q] and outputs [N, O, M, M'] in elements, so that any order of the axes
// in memory is served; and the geometry: strides, dilations - 1, padding before, padding
// after.
//
// The batch is divided among the threads of XLA's own pool, and oneDNN runs on one
// thread in each: no second pool whose threads would spin beside XLA's.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "dnnl.hpp"
#include "parallel.h"
#include "xla/ffi/api/ffi.h"

// Of the OpenMP that oneDNN was built with; absent where it was built with another.
extern "C" {
[[gnu::weak]] int omp_get_max_threads();
[[gnu::weak]] void omp_set_num_threads(int);
}

namespace {

namespace ffi = xla::ffi;
using coded_jax::Cores;
using coded_jax::Parts;
using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;

enum Kind { kForward = 0, kImageGradient = 1, kKernelGradient = 2 };

struct Convolution {
  Dims image, image_strides, kernel, kernel_strides, output, output_strides, geometry;
  bool bfloat16;
};

// What is done with the outputs of a convolution while they are in a register.
struct Epilogue {
  bool bias = false, relu = false;
};

using Type = dnnl::memory::data_type;
constexpr auto kFloat = Type::f32;
constexpr auto kDirect = dnnl::algorithm::convolution_direct;
// What makes it worth to wake a thread: 10 microseconds of work or so.
constexpr double kLeastFlops = 1e6;

const dnnl::engine& Cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Makes oneDNN compute on the calling thread alone.
class OneThread {
 public:
  OneThread() {
    if (!omp_set_num_threads) return;
    before_ = omp_get_max_threads();
    omp_set_num_threads(1);
  }
  ~OneThread() {
    if (omp_set_num_threads) omp_set_num_threads(before_);
  }

 private:
  int before_ = 1;
};

// Memory of a thread that only grows.
class Scratch {
 public:
  ~Scratch() { std::free(data_); }
  void* Get(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = 0;
      const size_t lines = (bytes + 63) / 64 * 64;
      data_ = std::aligned_alloc(64, lines);
      if (!data_) throw std::bad_alloc();
      size_ = lines;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

Desc Strided(const Dims& sizes, const Dims& strides) {
  return Desc(sizes, kFloat, strides);
}

// What a primitive is asked for: an order that is its own choice, or `as_is`.
Desc Wanted(const Dims& sizes, const Dims& strides, Type type, bool as_is) {
  if (as_is) return Desc(sizes, type, strides);
  return Desc(sizes, type, dnnl::memory::format_tag::any);
}

// Whether the processor multiplies bfloat16: without, oneDNN emulates it, slowly.
bool HasBfloat16() {
  const auto features = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (features & needed) == needed;
}

bool ChannelsLast(const Dims& sizes, const Dims& strides) {
  return strides[1] == 1 && strides[3] == sizes[1] &&
         strides[2] == sizes[3] * strides[3] && strides[0] == sizes[2] * strides[2];
}

// One operand of a primitive: as XLA has it, and as oneDNN wants it.
struct Operand {
  int name;
  Desc given, wanted;
  dnnl::reorder reorder;

  Operand() = default;
  Operand(int name, const Desc& given, const Desc& wanted, bool result)
      : name(name), given(given), wanted(wanted) {
    if (given == wanted) return;
    const Desc &from = result ? wanted : given, &to = result ? given : wanted;
    reorder = dnnl::reorder(dnnl::reorder::primitive_desc(Cpu(), from, Cpu(), to));
  }
  bool moves() const { return bool(reorder); }
};

// A convolution of some images of the batch, ready to run.
class Primitive {
 public:
  Primitive(Kind kind, const Convolution& c, Epilogue epilogue, int64_t images) {
    Dims image = c.image, output = c.output;
    image[0] = output[0] = images;
    const Desc x = Strided(image, c.image_strides);
    const Desc k = Strided(c.kernel, c.kernel_strides);
    const Desc y = Strided(output, c.output_strides);
    const bool as_is =
        ChannelsLast(c.image, c.image_strides) && ChannelsLast(c.output, c.output_strides);
    // Operands may be bfloat16; what is computed is float32.
    const Type factor = c.bfloat16 ? Type::bf16 : kFloat;
    const auto type = [&](Kind result) { return kind == result ? kFloat : factor; };
    const auto want_x = [&](Type t) { return Wanted(image, c.image_strides, t, as_is); };
    const auto want_k = [&](Type t) {
      return Wanted(c.kernel, c.kernel_strides, t, false);
    };
    const Desc wx = want_x(type(kImageGradient)), wk = want_k(type(kKernelGradient)),
               wy = Wanted(output, c.output_strides, type(kForward), as_is);
    const auto part = [&c](int i) {
      return Dims{c.geometry[2 * i], c.geometry[2 * i + 1]};
    };
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (epilogue.relu) {
      dnnl::post_ops ops;
      // x clip(alpha x, 0, 1) with the largest alpha: x or 0, and NaN for NaN, of which
      // oneDNN's own ReLU makes 0.
      ops.append_eltwise(dnnl::algorithm::eltwise_hardswish,
                         std::numeric_limits<float>::max(), 0);
      attr.set_post_ops(ops);
    }
    if (epilogue.bias) bias_ = Desc({output[1]}, kFloat, dnnl::memory::format_tag::x);
    const auto direction = kind == kForward ? dnnl::prop_kind::forward_inference
                                            : dnnl::prop_kind::forward_training;
    // The convolution; or the hint that its gradients are given, all of operands.
    const dnnl::convolution_forward::primitive_desc forward(
        Cpu(), direction, kDirect, want_x(factor), want_k(factor), bias_, wy, part(0),
        part(1), part(2), part(3), attr);
    if (kind == kForward) {
      Set(dnnl::convolution_forward(forward), forward,
          {DNNL_ARG_SRC, x, forward.src_desc(), false},
          {DNNL_ARG_WEIGHTS, k, forward.weights_desc(), false},
          {DNNL_ARG_DST, y, forward.dst_desc(), true});
    } else if (kind == kImageGradient) {
      const dnnl::convolution_backward_data::primitive_desc d(
          Cpu(), kDirect, wx, wk, wy, part(0), part(1), part(2), part(3), forward, attr);
      Set(dnnl::convolution_backward_data(d), d,
          {DNNL_ARG_DIFF_DST, y, d.diff_dst_desc(), false},
          {DNNL_ARG_WEIGHTS, k, d.weights_desc(), false},
          {DNNL_ARG_DIFF_SRC, x, d.diff_src_desc(), true});
    } else {
      const dnnl::convolution_backward_weights::primitive_desc d(
          Cpu(), kDirect, wx, wk, wy, part(0), part(1), part(2), part(3), forward, attr);
      Set(dnnl::convolution_backward_weights(d), d,
          {DNNL_ARG_SRC, x, d.src_desc(), false},
          {DNNL_ARG_DIFF_DST, y, d.diff_dst_desc(), false},
          {DNNL_ARG_DIFF_WEIGHTS, k, d.diff_weights_desc(), true});
    }
  }

  // Whether oneDNN has code for it, and not just its slow reference.
  bool fast() const { return fast_; }

  void Run(const float* first, const float* second, const float* bias,
           float* result) const {
    static thread_local dnnl::stream stream(Cpu());
    static thread_local Scratch scratch[4];
    void* given[] = {const_cast<float*>(first), const_cast<float*>(second), result};
    std::unordered_map<int, dnnl::memory> arguments;
    for (int i = 0; i < 3; ++i) {
      const Operand& o = operands_[i];
      dnnl::memory memory(o.given, Cpu(), given[i]);
      if (o.moves()) {
        dnnl::memory moved(o.wanted, Cpu(), scratch[i].Get(o.wanted.get_size()));
        if (i < 2) dnnl::reorder(o.reorder).execute(stream, memory, moved);
        memory = moved;
      }
      arguments.emplace(o.name, memory);
    }
    arguments.emplace(DNNL_ARG_SCRATCHPAD,
                      dnnl::memory(pad_, Cpu(), scratch[3].Get(pad_.get_size())));
    if (bias)
      arguments.emplace(DNNL_ARG_BIAS,
                        dnnl::memory(bias_, Cpu(), const_cast<float*>(bias)));
    primitive_.execute(stream, arguments);
    const Operand& o = operands_[2];
    if (!o.moves()) return;
    dnnl::memory memory(o.given, Cpu(), result);
    dnnl::reorder(o.reorder).execute(stream, arguments.at(o.name), memory);
  }

 private:
  template <class Description>
  void Set(dnnl::primitive primitive, const Description& d, Operand first, Operand second,
           Operand result) {
    primitive_ = primitive;
    pad_ = d.scratchpad_desc();
    fast_ = std::strncmp(d.impl_info_str(), "ref", 3) != 0;
    operands_[0] = first, operands_[1] = second, operands_[2] = result;
  }

  dnnl::primitive primitive_;
  Desc pad_, bias_;
  bool fast_ = false;
  Operand operands_[3];
};

std::vector<int64_t> Key(Kind kind, const Convolution& c, Epilogue e, int64_t images) {
  std::vector<int64_t> key{kind, e.bias, e.relu, images, c.bfloat16};
  for (const Dims* d : {&c.image, &c.image_strides, &c.kernel, &c.kernel_strides, &c.output,
                        &c.output_strides, &c.geometry})
    key.insert(key.end(), d->begin(), d->end());
  return key;
}

// Primitives are made once for each shape; they may run on several threads at once.
const Primitive& Get(Kind kind, const Convolution& c, Epilogue epilogue, int64_t images) {
  static std::mutex mutex;
  static auto& all = *new std::map<std::vector<int64_t>, std::unique_ptr<Primitive>>;
  const auto key = Key(kind, c, epilogue, images);
  std::lock_guard<std::mutex> lock(mutex);
  auto& primitive = all[key];
  if (!primitive) primitive = std::make_unique<Primitive>(kind, c, epilogue, images);
  return *primitive;
}

// The number of parts fixes the rounding of a kernel's gradient, so it follows from the
// machine and the shape alone.
int CountParts(const Convolution& c, int threads) {
  double flops = 2;
  for (int64_t size : c.output) flops *= size;
  const int axes = c.kernel.size();
  for (int axis = axes - 3; axis < axes; ++axis) flops *= c.kernel[axis];
  const int64_t most = std::min<int64_t>(c.image[0], std::min(Cores(), threads));
  return std::max<int64_t>(1, std::min<int64_t>(most, flops / kLeastFlops));
}

void Compute(ffi::ThreadPool& pool, Kind kind, const Convolution& c, const float* first,
             const float* second, float* result, const float* bias = nullptr,
             bool relu = false) {
  const int64_t images = c.image[0], image = c.image_strides[0], output = c.output_strides[0];
  int64_t kernel = 1;
  for (int64_t size : c.kernel) kernel *= size;
  const int parts = CountParts(c, pool.num_threads());
  std::vector<float> sums(kind == kKernelGradient ? kernel * (parts - 1) : 0);
  Parts::Run(pool, parts, [&](int i) {
    const OneThread one;
    const int64_t begin = images * i / parts, end = images * (i + 1) / parts;
    const Primitive& primitive = Get(kind, c, {bias != nullptr, relu}, end - begin);
    const int64_t x = image * begin, y = output * begin;
    if (kind == kForward) primitive.Run(first + x, second, bias, result + y);
    if (kind == kImageGradient) primitive.Run(first + y, second, nullptr, result + x);
    if (kind == kKernelGradient)
      primitive.Run(first + x, second + y, nullptr, i ? &sums[kernel * (i - 1)] : result);
  });
  for (const float* sum = sums.data(); sum != sums.data() + sums.size(); sum += kernel)
    for (int64_t i = 0; i < kernel; ++i) result[i] += sum[i];
}

using Ints = ffi::Span<const int64_t>;

Dims ToDims(Ints values) { return Dims(values.begin(), values.end()); }

template <class Buffer>
float* Data(Buffer& buffer) {
  return static_cast<float*>(buffer.untyped_data());
}

template <class F>
ffi::Error Guarded(F f) {
  try {
    f();
    return ffi::Error::Success();
  } catch (const std::exception& e) {
    return ffi::Error(ffi::ErrorCode::kInternal, std::string("oneDNN: ") + e.what());
  }
}

ffi::Error Convolve(ffi::ThreadPool pool, ffi::AnyBuffer first, ffi::AnyBuffer second,
                    ffi::Result<ffi::AnyBuffer> result, int64_t kind, bool bfloat16,
                    Ints image, Ints image_strides, Ints kernel, Ints kernel_strides,
                    Ints output, Ints output_strides, Ints geometry) {
  return Guarded([&] {
    const Convolution c{ToDims(image),          ToDims(image_strides), ToDims(kernel),
                        ToDims(kernel_strides), ToDims(output),        ToDims(output_strides),
                        ToDims(geometry),       bfloat16};
    Compute(pool, static_cast<Kind>(kind), c, Data(first), Data(second), Data(*result));
  });
}

ffi::Error ConvolveLayer(ffi::ThreadPool pool, ffi::AnyBuffer images, ffi::AnyBuffer weights,
                         ffi::AnyBuffer bias, ffi::Result<ffi::AnyBuffer> result, bool relu,
                         bool bfloat16, Ints image, Ints image_strides, Ints kernel,
                         Ints kernel_strides, Ints output, Ints output_strides,
                         Ints geometry) {
  return Guarded([&] {
    const Convolution c{ToDims(image),          ToDims(image_strides), ToDims(kernel),
                        ToDims(kernel_strides), ToDims(output),        ToDims(output_strides),
                        ToDims(geometry),       bfloat16};
    Compute(pool, kForward, c, Data(images), Data(weights), Data(*result), Data(bias), relu);
  });
}

}  // namespace

#define CODED_JAX_SHAPES          \
  Attr<bool>("bfloat16")          \
      .Attr<Ints>("image")        \
      .Attr<Ints>("image_strides") \
      .Attr<Ints>("kernel")        \
      .Attr<Ints>("kernel_strides") \
      .Attr<Ints>("output")        \
      .Attr<Ints>("output_strides") \
      .Attr<Ints>("geometry")

XLA_FFI_DEFINE_HANDLER_SYMBOL(coded_jax_convolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("kind")
                                  .CODED_JAX_SHAPES);

XLA_FFI_DEFINE_HANDLER_SYMBOL(coded_jax_convolve_layer, ConvolveLayer,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .CODED_JAX_SHAPES);

// Returns whether oneDNN has fast code for a convolution: 1 or 0. `numbers` has the
// seven attributes of its shapes one after the other, 4 or 5 for the kernel and else 4
// each, but 8 of the geometry.
extern "C" int coded_jax_accepts(int64_t kind, int bfloat16, const int64_t* numbers,
                                 int kernel_axes) {
  if (bfloat16 && !HasBfloat16()) return 0;
  const auto take = [&numbers](int count) {
    const Dims dims(numbers, numbers + count);
    numbers += count;
    return dims;
  };
  Convolution c;
  c.image = take(4), c.image_strides = take(4);
  c.kernel = take(kernel_axes), c.kernel_strides = take(kernel_axes);
  c.output = take(4), c.output_strides = take(4), c.geometry = take(8);
  c.bfloat16 = bfloat16;
  try {
    const OneThread one;
    const int64_t images = c.image[0] / CountParts(c, Cores());
    return Get(static_cast<Kind>(kind), c, {}, images).fast();
  } catch (const std::exception&) {
    return 0;
  }
}

extern "C" const char* coded_jax_onednn_version() {
  static const auto* v = dnnl_version();
  static const std::string text = std::to_string(v->major) + "." + std::to_string(v->minor) +
                                  "." + std::to_string(v->patch);
  return text.c_str();
}
