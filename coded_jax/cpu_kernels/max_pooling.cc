// The gradient of max pooling as a custom call of XLA's CPU backend.
//
// Images [N, H, W, C] of float32, windows of P x Q with strides; attributes give the
// sizes of the windows, strides, and padding before the first row and column. Of equal
// maxima the first, row by row, has the gradient, as by XLA's select_and_scatter.

#include <algorithm>
#include <string>
#include <vector>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Ints = ffi::Span<const int64_t>;

struct Pooling {
  int64_t rows, columns, channels, out_rows, out_columns;
  int64_t window[2], strides[2], padding[2];
};

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define FOR_SEVERAL_CPUS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_SEVERAL_CPUS
#endif

// One window and all channels: `best` and `winner` have room for each channel.
FOR_SEVERAL_CPUS void OneWindow(const float* x, const float* gradient, float* result,
                                const int64_t* offsets, int taps, int channels,
                                float* best, int* winner) {
  for (int c = 0; c < channels; ++c) {
    best[c] = x[offsets[0] + c];
    winner[c] = 0;
  }
  for (int tap = 1; tap < taps; ++tap) {
    const float* values = x + offsets[tap];
    for (int c = 0; c < channels; ++c) {
      const bool more = values[c] > best[c];
      best[c] = more ? values[c] : best[c];
      winner[c] = more ? tap : winner[c];
    }
  }
  for (int tap = 0; tap < taps; ++tap) {
    float* sums = result + offsets[tap];
    for (int c = 0; c < channels; ++c) sums[c] += winner[c] == tap ? gradient[c] : 0.0f;
  }
}

void OneImage(const Pooling& p, const float* x, const float* gradient, float* result) {
  std::fill(result, result + p.rows * p.columns * p.channels, 0.0f);
  std::vector<float> best(p.channels);
  std::vector<int> winner(p.channels);
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < p.out_rows; ++i) {
    for (int64_t j = 0; j < p.out_columns; ++j, gradient += p.channels) {
      const int64_t top = i * p.strides[0] - p.padding[0];
      const int64_t left = j * p.strides[1] - p.padding[1];
      offsets.clear();
      for (int64_t r = std::max<int64_t>(top, 0); r < std::min(top + p.window[0], p.rows); ++r)
        for (int64_t s = std::max<int64_t>(left, 0); s < std::min(left + p.window[1], p.columns);
             ++s)
          offsets.push_back((r * p.columns + s) * p.channels);
      if (offsets.empty()) continue;  // the window is of padding alone
      OneWindow(x, gradient, result, offsets.data(), offsets.size(), p.channels, best.data(),
                winner.data());
    }
  }
}

ffi::Error MaxPoolGradient(ffi::ThreadPool pool, ffi::AnyBuffer gradient, ffi::AnyBuffer x,
                           ffi::Result<ffi::AnyBuffer> result, Ints window, Ints strides,
                           Ints padding) {
  const auto in = x.dimensions(), out = gradient.dimensions();
  Pooling p{in[1], in[2], in[3], out[1], out[2], {}, {}, {}};
  std::copy(window.begin(), window.end(), p.window);
  std::copy(strides.begin(), strides.end(), p.strides);
  std::copy(padding.begin(), padding.end(), p.padding);
  const int64_t images = in[0], image = p.rows * p.columns * p.channels;
  const int64_t share = p.out_rows * p.out_columns * p.channels;
  constexpr int64_t kLeast = 1 << 14;  // values, for which it is worth to wake a thread
  const int64_t most = std::min<int64_t>(images, images * image / kLeast);
  const int parts = std::max<int64_t>(
      1, std::min<int64_t>({most, coded_jax::Cores(), pool.num_threads()}));
  const auto* from = static_cast<const float*>(x.untyped_data());
  const auto* g = static_cast<const float*>(gradient.untyped_data());
  auto* to = static_cast<float*>(result->untyped_data());
  try {
    coded_jax::Parts::Run(pool, parts, [&](int part) {
      for (int64_t n = images * part / parts; n < images * (part + 1) / parts; ++n)
        OneImage(p, from + n * image, g + n * share, to + n * image);
    });
    return ffi::Error::Success();
  } catch (const std::exception& e) {
    return ffi::Error(ffi::ErrorCode::kInternal, std::string("max pooling: ") + e.what());
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(coded_jax_max_pool_gradient, MaxPoolGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<Ints>("window")
                                  .Attr<Ints>("strides")
                                  .Attr<Ints>("padding"));
