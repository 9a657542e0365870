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

// Windows of 2x2 side by side, inside the image: the taps are of four pointers.
void TwoByTwo(const Pooling& p, const float* x, const float* gradient, float* result) {
  const int64_t channels = p.channels, below = p.columns * channels;
  if (p.rows % 2 || p.columns % 2) std::fill(result, result + p.rows * below, 0.0f);
  for (int64_t i = 0; i < p.out_rows; ++i) {
    for (int64_t j = 0; j < p.out_columns; ++j, gradient += channels) {
      const int64_t corner = 2 * (i * below + j * channels);
      const float *top = x + corner, *bottom = top + below;
      float *to = result + corner, *to_bottom = to + below;
#pragma GCC ivdep  // the taps do not overlap
      for (int64_t c = 0; c < channels; ++c) {
        const float first = top[c], second = top[channels + c];
        const float third = bottom[c], fourth = bottom[channels + c];
        const float upper = second > first ? second : first;
        const float three = third > upper ? third : upper;
        // What later taps, which are larger than all before them, leave of the gradient.
        const float of_three = fourth > three ? 0.0f : gradient[c];
        const float of_two = third > upper ? 0.0f : of_three;
        to_bottom[channels + c] = fourth > three ? gradient[c] : 0.0f;
        to_bottom[c] = third > upper ? of_three : 0.0f;
        to[channels + c] = second > first ? of_two : 0.0f;
        to[c] = second > first ? 0.0f : of_two;
      }
    }
  }
}

// Any windows, which may overlap and reach beyond the image.
void AnyWindows(const Pooling& p, const float* x, const float* gradient, float* result) {
  std::fill(result, result + p.rows * p.columns * p.channels, 0.0f);
  std::vector<float> best(p.channels);
  std::vector<int> winner(p.channels);
  std::vector<int64_t> taps;
  for (int64_t i = 0; i < p.out_rows; ++i) {
    for (int64_t j = 0; j < p.out_columns; ++j, gradient += p.channels) {
      const int64_t top = i * p.strides[0] - p.padding[0];
      const int64_t left = j * p.strides[1] - p.padding[1];
      taps.clear();
      for (int64_t r = std::max<int64_t>(top, 0); r < std::min(top + p.window[0], p.rows); ++r)
        for (int64_t s = std::max<int64_t>(left, 0); s < std::min(left + p.window[1], p.columns);
             ++s)
          taps.push_back((r * p.columns + s) * p.channels);
      if (taps.empty()) continue;  // the window is of padding alone
      for (int64_t c = 0; c < p.channels; ++c) {
        best[c] = x[taps[0] + c];
        winner[c] = 0;
      }
      for (size_t tap = 1; tap < taps.size(); ++tap) {
        for (int64_t c = 0; c < p.channels; ++c) {
          const bool more = x[taps[tap] + c] > best[c];
          best[c] = more ? x[taps[tap] + c] : best[c];
          winner[c] = more ? tap : winner[c];
        }
      }
      for (int64_t c = 0; c < p.channels; ++c) result[taps[winner[c]] + c] += gradient[c];
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
    const bool side_by_side = std::equal(p.window, p.window + 2, p.strides) &&
                              p.window[0] == 2 && p.window[1] == 2;
    const bool inside = !p.padding[0] && !p.padding[1] && 2 * p.out_rows <= p.rows &&
                        2 * p.out_columns <= p.columns;
    const auto one_image = side_by_side && inside ? TwoByTwo : AnyWindows;
    coded_jax::Parts::Run(pool, parts, [&](int part) {
      for (int64_t n = images * part / parts; n < images * (part + 1) / parts; ++n)
        one_image(p, from + n * image, g + n * share, to + n * image);
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
