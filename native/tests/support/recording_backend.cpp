#include "support/recording_backend.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "common/crc32c.h"
#include "gguf/dequantize.h"

namespace lorica::test {

namespace {

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", value);
    return text;
}

const char * dtype_name(Dtype type) { return type == Dtype::bf16 ? "bf16" : type == Dtype::f32 ? "f32" : "f64"; }

}  // namespace

// ---- what memory holds

void Recording::name_weights(const GgufFile & file) { file_ = &file; }

void Recording::name_memory(const void * begin, size_t n_bytes, const std::string & name) {
    const auto * first = static_cast<const std::byte *>(begin);
    named_.insert(named_.begin(), {first, first + n_bytes, name});
}

std::string Recording::parameter_name(const void * data) const {
    for (const Named & one : named_) {
        if (data >= one.begin && data < one.end) return one.name;
    }
    return "undefined";
}

// By its place in the mapped file or, of a copy of 32-bit values, by what it holds.
std::string Recording::weight_name(const void * data, size_t n_bytes) const {
    if (!file_) return parameter_name(data);
    for (const TensorView & tensor : file_->tensors()) {
        const bool same =
            data == tensor.data || (n_bytes > 0 && tensor.type == GGML_TYPE_F32 && tensor.n_bytes == n_bytes &&
                                    std::memcmp(data, tensor.data, n_bytes) == 0);
        if (!same) continue;
        return tensor.name.ends_with(".weight") ? tensor.name.substr(0, tensor.name.size() - 7) : tensor.name;
    }
    return "unnamed";
}

namespace {

// Of two rectangles of bytes.
template <typename Region> bool overlap(const Region & a, const Region & b) {
    const auto span = [](const Region & r) {
        return r.rows == 0 ? 0 : static_cast<size_t>(r.rows - 1) * r.stride_bytes + r.row_bytes;
    };
    if (a.begin >= b.begin + span(b) || b.begin >= a.begin + span(a)) return false;
    if (a.stride_bytes != b.stride_bytes) return true;
    const auto stride = static_cast<int64_t>(a.stride_bytes);
    const int64_t distance = b.begin - a.begin;
    const int64_t column = (distance % stride + stride) % stride;
    // Either b begins in a's columns, or it reaches around into the next row of a.
    return column < static_cast<int64_t>(a.row_bytes) ||
           column + static_cast<int64_t>(b.row_bytes) > static_cast<int64_t>(a.stride_bytes);
}

// Whether a covers all of b.
template <typename Region> bool covers(const Region & a, const Region & b) {
    if (b.rows == 0) return true;
    if (a.row_bytes == a.stride_bytes || a.rows == 1) {  // without gaps
        const size_t n = static_cast<size_t>(a.rows - 1) * a.stride_bytes + a.row_bytes;
        return b.begin >= a.begin &&
               b.begin + static_cast<size_t>(b.rows - 1) * b.stride_bytes + b.row_bytes <= a.begin + n;
    }
    if (a.rows > 1 && b.rows > 1 && a.stride_bytes != b.stride_bytes) return false;
    if (b.begin < a.begin) return false;
    const auto distance = static_cast<size_t>(b.begin - a.begin);
    const size_t row = a.stride_bytes == 0 ? 0 : distance / a.stride_bytes, column = distance - row * a.stride_bytes;
    return column + b.row_bytes <= a.row_bytes && static_cast<int64_t>(row) + b.rows <= a.rows;
}

struct Interval {
    const std::byte *begin, *end;
};

template <typename Region> Interval row_of(const Region & region, int64_t row) {
    const std::byte * begin = region.begin + static_cast<size_t>(row) * region.stride_bytes;
    return {begin, begin + region.row_bytes};
}

// Adds to `rest` what of the interval the rows of the region do not cover. Whether they cover anything of it.
template <typename Region> bool subtract(Interval interval, const Region & region, std::vector<Interval> & rest) {
    const auto stride = std::max<int64_t>(static_cast<int64_t>(region.stride_bytes), 1);
    const int64_t before = interval.begin - region.begin;
    bool covers_some = false;
    for (int64_t row = before > 0 ? before / stride : 0; row < region.rows; ++row) {
        const Interval own = row_of(region, row);
        if (own.begin >= interval.end) break;
        if (own.end <= interval.begin) continue;
        covers_some = true;
        if (own.begin > interval.begin) rest.push_back({interval.begin, own.begin});
        interval.begin = std::min(own.end, interval.end);
    }
    if (interval.begin < interval.end) rest.push_back(interval);
    return covers_some;
}

}  // namespace

// Newest first: those of which anything is left in the region that newer ones, alone or as columns side by side, do not
// cover.
std::vector<Recording::Region> Recording::find(const Region & region) const {
    std::vector<Region> found;
    std::vector<Interval> left;
    for (int64_t row = 0; row < region.rows; ++row) left.push_back(row_of(region, row));
    for (auto r = regions_.rbegin(); r != regions_.rend() && !left.empty(); ++r) {
        if (!overlap(*r, region)) continue;
        std::vector<Interval> rest;
        bool is_seen = false;
        for (const Interval & interval : left) is_seen |= subtract(interval, *r, rest);
        if (is_seen) found.push_back(*r);
        left = std::move(rest);
    }
    return found;
}

void Recording::write(const Region & region, size_t value) {
    std::erase_if(regions_, [&](const Region & old) { return covers(region, old); });
    regions_.push_back(region);
    regions_.back().value = value;
}

// ---- the text

void Recording::clear() {
    entries_.clear();
    first_value_ = values_.size();
}

void Recording::forget(const void * begin, size_t n_bytes) {
    const auto * first = static_cast<const std::byte *>(begin);
    const auto end_of = [](const Region & r) {
        return r.begin + (r.rows == 0 ? 0 : static_cast<size_t>(r.rows - 1) * r.stride_bytes + r.row_bytes);
    };
    std::erase_if(regions_, [&](const Region & r) { return r.begin < first + n_bytes && end_of(r) > first; });
    std::erase_if(named_, [&](const Named & n) { return n.begin >= first && n.begin < first + n_bytes; });
}

std::vector<bool> Recording::live() const {
    std::vector<bool> result(entries_.size()), wanted(values_.size());
    for (size_t i = entries_.size(); i-- > 0;) {
        const Entry & entry = entries_[i];
        result[i] = entry.is_root ||
                    std::any_of(entry.writes.begin(), entry.writes.end(), [&](size_t value) { return wanted[value]; });
        if (!result[i]) continue;
        for (const size_t value : entry.reads) wanted[value] = true;
    }
    return result;
}

size_t Recording::n_struck() const {
    const std::vector<bool> lives = live();
    return static_cast<size_t>(std::count(lives.begin(), lives.end(), false));
}

std::string Recording::text() const {
    const std::vector<bool> lives = live();
    std::map<std::string, int> counts;
    std::map<size_t, std::string> names;
    const auto name_of = [&](size_t value) {
        const auto [at, is_new] = names.try_emplace(value);
        if (is_new) {
            const std::string & base = values_[value].base;
            const int n = ++counts[base];
            at->second = n == 1 ? base : base + "#" + std::to_string(n);
        }
        return at->second;
    };
    std::string text;
    for (size_t i = 0; i < entries_.size(); ++i) {
        if (!lives[i]) continue;
        for (const Part & part : entries_[i].parts) {
            text += part.text;
            for (size_t v = 0; v < part.values.size(); ++v) text += (v == 0 ? "" : "|") + name_of(part.values[v]);
        }
        text += "\n";
    }
    return text;
}

void Recording::fill_with_nan() {
    last_reads_.clear();
    for (size_t i = first_value_; i < values_.size(); ++i) last_reads_.push_back(values_[i].last_read);
    clear();
    regions_.clear();
    fills_ = true;
}

namespace {

template <typename Region> void fill(const Region & region) {
    for (int64_t r = 0; r < region.rows; ++r) {
        std::memset(region.begin + static_cast<size_t>(r) * region.stride_bytes, 0xff, region.row_bytes);
    }
}

}  // namespace

void Recording::poison_dead() {
    if (!fills_) return;
    const size_t now = entries_.size();
    for (size_t i = 0; i < regions_.size();) {
        const Region region = regions_[i];
        const size_t number = region.value - first_value_;
        const bool dead = number < last_reads_.size() && last_reads_[number] < now;
        const bool shared = std::any_of(regions_.begin() + static_cast<int64_t>(i) + 1, regions_.end(),
                                        [&](const Region & newer) { return overlap(newer, region); });
        if (!dead || shared) {
            ++i;
            continue;
        }
        fill(region);
        regions_.erase(regions_.begin() + static_cast<int64_t>(i));
    }
}

// ---- the backend

class RecordingBackend final : public Backend {
public:
    RecordingBackend(std::shared_ptr<Recording> recording, std::unique_ptr<Backend> backend)
        : log_(std::move(recording)), to_(std::move(backend)) {}

    std::string name() const override { return to_->name(); }
    std::string detail() const override { return to_->detail(); }
    Formats formats() const override { return to_->formats(); }
    void * allocate(size_t n_bytes) override {
        void * memory = to_->allocate(n_bytes);
        log_->forget(memory, n_bytes);
        return memory;
    }
    void release(void * memory) override { to_->release(memory); }
    void copy_to_device(void * device, const void * host, size_t n_bytes) override {
        to_->copy_to_device(device, host, n_bytes);
    }
    void copy_to_host(void * host, const void * device, size_t n_bytes) override {
        const Recording::Region region{const_cast<std::byte *>(static_cast<const std::byte *>(device)), n_bytes,
                                       n_bytes, 1, 0};
        if (!log_->find(region).empty()) {
            Call call(*this, "to the host");
            call.in("", region, "");
            call.is_root();
        }
        to_->copy_to_host(host, device, n_bytes);
    }
    void fill_zero(void * device, size_t n_bytes) override {
        Call call(*this, "clear");
        call.out("", {static_cast<std::byte *>(device), n_bytes, n_bytes, 1, 0}, "zero",
                 "[" + std::to_string(n_bytes) + " bytes]");
        to_->fill_zero(device, n_bytes);
    }
    void synchronize() override { to_->synchronize(); }
    int64_t available_memory() const override { return to_->available_memory(); }
    size_t workspace_bytes(const WorkspaceShape & shape) const override { return to_->workspace_bytes(shape); }
    void reserve(const WorkspaceShape & shape) override { to_->reserve(shape); }
    const std::byte * load_weight(const std::byte * mapped, size_t n_bytes) override {
        return to_->load_weight(mapped, n_bytes);
    }
    void prepare(const Weight & weight) override { to_->prepare(weight); }
    int64_t weight_memory(const Weight & weight) const override { return to_->weight_memory(weight); }
    bool has_adamw_8bit() const override { return to_->has_adamw_8bit(); }
    bool has_dora() const override { return to_->has_dora(); }
    double sum_of_squares(const void * x, int64_t n) override { return to_->sum_of_squares(x, n); }
    void adamw(void * param, const void * grad, void * m, void * v, int64_t n, const AdamwParams & params) override {
        to_->adamw(param, grad, m, v, n, params);
    }
    void row_squares(const Weight & weight, void * squares) override { to_->row_squares(weight, squares); }

    void embed(const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) override {
        Call call(*this, "embed");
        call.text("tokens=" + checksum(ids, x.rows));
        if (options.scale != 1) call.text("scale=" + number(options.scale));
        call.in("virtual", options.virtual_rows);
        if (options.accumulate) {
            call.text(weight_name(table));
            call.accumulate("x", x, base_of(x));
        } else {
            call.out("x", x, weight_name(table));
        }
        to_->embed(table, ids, options, x);
    }
    void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale,
                        void * d_table) override {
        Call call(*this, "embed_backward");
        call.text("ids=" + checksum(ids, n) + " rows=" + checksum(rows, n) + " scale=" + number(scale) + " +=d(" +
                  log_->parameter_name(d_table) + ")");
        call.in("dx", dx);
        call.is_root();
        to_->embed_backward(dx, ids, rows, n, scale, d_table);
    }
    void add_noise(Matrix x, std::span<const Segment> segments, double alpha, uint64_t seed) override {
        Call call(*this, "add_noise");
        call.text("alpha=" + number(alpha) + " seed=" + std::to_string(seed) + segments_text(segments));
        call.accumulate("x", x, base_of(x));
        to_->add_noise(x, segments, alpha, seed);
    }
    void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y) override {
        Call call(*this, "norm");
        call.in("x", x);
        call.norm(norm, x.cols);
        call.in("residual", residual);
        call.out("y", y, norm_name(norm, x.cols));
        to_->norm(x, norm, residual, y);
    }
    void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act) override {
        Call call(*this, "norm_backward");
        call.in("dy", dy);
        call.in("x", x);
        call.norm_backward(norm, x.cols);
        const std::string base = "d(" + base_of(x) + ")";
        if (accumulate) {
            call.accumulate("dx", dx, base);
        } else {
            call.out("dx", dx, base);
        }
        call.out("dx_act", dx_act, base + ".act");
        to_->norm_backward(dy, x, norm, accumulate, dx, dx_act);
    }
    void norm_gradient(Matrix dy, Matrix x, const Norm & norm, void * dw, void * db) override {
        Call call(*this, "norm_gradient");
        call.in("dy", dy);
        call.in("x", x);
        call.norm_backward(norm, x.cols);
        if (dw) call.text("+=d(" + log_->parameter_name(norm.weight.data) + ")");
        if (db) call.text("+=d(" + log_->parameter_name(norm.bias.data) + ")");
        call.is_root();
        to_->norm_gradient(dy, x, norm, dw, db);
    }
    void linear(Matrix x, std::span<const LinearForward> layers) override {
        Call call(*this, "linear");
        call.in("x", x);
        call.layers(layers);
        to_->linear(x, layers);
    }
    void linear_backward(Matrix x, std::span<const LinearBackward> layers, bool accumulate, Matrix dx) override {
        Call call(*this, "linear_backward");
        const bool needs_x =
            std::any_of(layers.begin(), layers.end(), [](const LinearBackward & layer) { return layer.needs_x(); });
        call.in(needs_x ? "x" : "", needs_x ? x : Matrix{});
        call.layers(layers);
        // What is not needed may be gone.
        const bool is_gone = !needs_x && base_of(x) == "undefined";
        const std::string input = is_gone ? weight_name(*layers[0].weight) + ".input" : base_of(x);
        if (accumulate) {
            call.accumulate("dx", dx, "d(" + input + ")");
        } else {
            call.out("dx", dx, "d(" + input + ")");
        }
        to_->linear_backward(x, layers, accumulate, dx);
    }
    void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) override {
        const bool inverse = direction != RopeDirection::forward;
        const bool undoes = direction == RopeDirection::undo && (rope.magnitude != 1 || rope.temperature != 0);
        Call call(*this, undoes ? "rope_undo" : inverse ? "rope_back" : "rope");
        const std::string base = base_of(x), rotated = ".rope";
        call.rope(positions, x.rows, rope);
        call.in("x", x);
        const bool undone = inverse && base.ends_with(rotated);
        call.out("x", x, undone ? base.substr(0, base.size() - rotated.size()) : inverse ? base : base + rotated);
        to_->rope(x, positions, rope, direction);
    }
    void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, const int32_t * rows,
                         const Rope & rope, Matrix k_cache, Matrix v_cache) override {
        Call call(*this, "rope_into_cache");
        call.rope(positions, q.rows, rope);
        if (rows) call.text("rows=" + checksum(rows, q.rows));
        call.in("q", q);
        call.in("k", k);
        call.in("v", v);
        const std::string q_base = base_of(q), k_base = base_of(k), v_base = base_of(v);
        call.out("q", q, q_base + ".rope");
        call.accumulate("k_cache", k_cache, k_base + ".cache");
        call.accumulate("v_cache", v_cache, v_base + ".cache");
        to_->rope_into_cache(q, k, v, positions, rows, rope, k_cache, v_cache);
    }
    void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape,
                   Matrix o, Matrix lse) override {
        Call call(*this, "attention");
        call.attention(segments, shape);
        call.in("q", q);
        call.in("k", k);
        call.in("v", v);
        const std::string base = "attention(" + base_of(q) + ")";
        call.out("o", o, base);
        call.out("lse", lse, base + ".lse");
        to_->attention(q, k, v, segments, shape, o, lse);
    }
    void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                            std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                            Matrix dv) override {
        Call call(*this, "attention_backward");
        call.attention(segments, shape);
        call.in("q", q);
        call.in("k", k);
        call.in("v", v);
        call.in("o", o);
        call.in("lse", lse);
        call.in("d_o", d_o);
        const std::string q_name = base_of(q), k_name = base_of(k), v_name = base_of(v);
        call.out("dq", dq, "d(" + q_name + ")");
        call.out("dk", dk, "d(" + k_name + ")");
        call.out("dv", dv, "d(" + v_name + ")");
        to_->attention_backward(q, k, v, o, lse, d_o, segments, shape, dq, dk, dv);
    }
    void gated(Matrix gate, Matrix up, Act act, Matrix h) override {
        Call call(*this, "gated");
        call.act(act);
        call.in("gate", gate);
        call.in("up", up);
        call.out("h", h, "gated(" + base_of(gate) + ")");
        to_->gated(gate, up, act, h);
    }
    void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) override {
        Call call(*this, "gated_backward");
        call.act(act);
        call.gated_backward(gate, up, dh, dgate, dup);
        to_->gated_backward(gate, up, act, dh, dgate, dup);
    }
    void activation(Matrix x, Act act, Matrix h) override {
        Call call(*this, "activation");
        call.act(act);
        call.in("x", x);
        call.out("h", h, "activation(" + base_of(x) + ")");
        to_->activation(x, act, h);
    }
    void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx) override {
        Call call(*this, "activation_backward");
        call.act(act);
        call.in("x", x);
        call.in("dh", dh);
        call.out("dx", dx, "d(" + base_of(x) + ")");
        to_->activation_backward(x, act, dh, dx);
    }
    void scale(Matrix x, double factor, Matrix y) override {
        Call call(*this, "scale");
        call.text(number(factor));
        call.in("x", x);
        call.out("y", y, base_of(x) + ".scaled");
        to_->scale(x, factor, y);
    }
    void scale_rows(Matrix x, const float * factors, Matrix y) override {
        Call call(*this, "scale_rows");
        call.text("factors=" + checksum(reinterpret_cast<const int32_t *>(factors), x.rows));
        call.in("x", x);
        call.out("y", y, base_of(x) + ".scaled");
        to_->scale_rows(x, factors, y);
    }
    void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y) override {
        Call call(*this, "segment_mean");
        call.text(segments_text(segments));
        call.in("x", x);
        call.out("y", y, "mean(" + base_of(x) + ")");
        to_->segment_mean(x, segments, y);
    }
    void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx) override {
        Call call(*this, "segment_mean_backward");
        call.text(segments_text(segments));
        call.in("dy", dy);
        call.accumulate("dx", dx, "spread(" + base_of(dy) + ")");
        to_->segment_mean_backward(dy, segments, dx);
    }
    void norm_linear(Matrix x, const Norm & norm, std::span<const LinearForward> layers, Matrix normed) override {
        Call call(*this, "norm_linear");
        call.in("x", x);
        call.norm(norm, x.cols);
        call.memory("normed", normed);
        call.layers(layers);
        to_->norm_linear(x, norm, layers, normed);
    }
    void norm_linear_gated(Matrix x, const Norm & norm, const LinearForward & gate, const LinearForward & up, Act act,
                           Matrix normed, Matrix h) override {
        Call call(*this, "norm_linear_gated");
        call.act(act);
        call.in("x", x);
        call.norm(norm, x.cols);
        call.memory("normed", normed);
        const LinearForward layers[] = {gate, up};
        call.layers(layers);
        call.out("h", h, "gated(" + weight_name(*gate.weight) + ")");
        to_->norm_linear_gated(x, norm, gate, up, act, normed, h);
    }
    void gated_linear_backward(Matrix gate, Matrix up, Act act, const LinearBackward & down, Matrix h, Matrix dh,
                               Matrix dgate, Matrix dup) override {
        Call call(*this, "gated_linear_backward");
        call.act(act);
        call.layers(std::span(&down, 1));
        call.memory("h", h);
        call.memory("dh", dh);
        call.gated_backward(gate, up, {}, dh ? dgate : Matrix{}, dh ? dup : Matrix{});
        to_->gated_linear_backward(gate, up, act, down, h, dh, dgate, dup);
    }
    void norm_linear_backward(Matrix x, const Norm & norm, std::span<const LinearBackward> layers, Matrix normed,
                              Matrix d_normed, Matrix dx, Matrix dx_act) override {
        Call call(*this, "norm_linear_backward");
        call.in("x", x);
        call.norm_backward(norm, x.cols);
        call.memory("normed", normed);
        call.memory("d_normed", d_normed);
        call.layers(layers);
        call.accumulate("dx", dx, "d(" + base_of(x) + ")");
        if (dx) call.out("dx_act", dx_act, "d(" + base_of(x) + ").act");
        to_->norm_linear_backward(x, norm, layers, normed, d_normed, dx, dx_act);
    }
    void gather_rows(Matrix x, const int32_t * rows, Matrix y) override {
        Call call(*this, "gather_rows");
        call.text("rows=" + checksum(rows, y.rows));
        call.in("x", x);
        call.out("y", y, "rows(" + base_of(x) + ")");
        to_->gather_rows(x, rows, y);
    }
    void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) override {
        Call call(*this, "scatter_add_rows");
        call.text("rows=" + checksum(rows, dy.rows));
        call.in("dy", dy);
        call.accumulate("dx", dx, "scattered");
        to_->scatter_add_rows(dy, rows, dx);
    }
    void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, void * nll, Matrix dx) override {
        Call call(*this, "linear_cross_entropy");
        call.text(weight_name(*head.weight) + " labels=" + checksum(labels, x.rows));
        call.logits(head.logits);
        if (head.row_weights)
            call.text("weights=" + checksum(reinterpret_cast<const int32_t *>(head.row_weights), x.rows));
        if (head.dw) {
            call.text("+=dw");
            call.is_root();
        }
        call.in("x", x);
        const size_t bytes = static_cast<size_t>(x.rows) * dtype_size(formats().hidden);
        call.out("nll", {static_cast<std::byte *>(nll), bytes, bytes, 1, 0}, "nll", "");
        call.out("dx", dx, "d(" + base_of(x) + ")");
        to_->linear_cross_entropy(x, head, labels, nll, dx);
    }
    void logits(Matrix x, const Head & head, float * out) override {
        Call call(*this, "logits");
        call.text(weight_name(*head.weight));
        call.logits(head.logits);
        call.in("x", x);
        const size_t bytes = static_cast<size_t>(x.rows * head.weight->out) * sizeof(float);
        call.out("out", {reinterpret_cast<std::byte *>(out), bytes, bytes, 1, 0}, "logits", "");
        to_->logits(x, head, out);
    }
    void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows) override {
        const std::string name = log_->parameter_name(lora.b);
        log_->factors_[rows.factors] = name;
        Call call(*this, "dora_factors");
        call.text(name + " strength=" + number(rows.strength));
        call.in("products", rows.products);
        call.is_root();
        to_->dora_factors(lora, in, out, rows);
    }
    void scale_columns(Matrix x, const void * factors, Vector bias, Matrix residual, Matrix y) override {
        Call call(*this, "scale_columns");
        const auto of_dora = log_->factors_.find(factors);
        const bool is_ours = of_dora == log_->factors_.end();
        call.text(factors ? "factors(" + (is_ours ? log_->parameter_name(factors) : of_dora->second) + ")" : "sum");
        call.bias(bias, x.cols);
        call.in("x", x);
        call.in("residual", residual);
        call.out("y", y, base_of(x));
        to_->scale_columns(x, factors, bias, residual, y);
    }
    void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows, void * d_magnitudes,
                       Matrix dx) override {
        Call call(*this, "dora_backward");
        call.text("+=d(" + log_->parameter_name(rows.magnitudes) + ")");
        call.bias(bias, y.cols);
        call.in("dy", dy);
        call.in("y", y);
        call.in("residual", residual);
        call.is_root();
        call.out("dx", dx, "d(" + base_of(y) + ").unscaled");
        to_->dora_backward(dy, y, bias, residual, rows, d_magnitudes, dx);
    }

private:
    // One line. Outputs are entered when it ends, so that in-place operations read what was there before.
    class Call {
    public:
        Call(RecordingBackend & backend, const std::string & what) : log_(*backend.log_), backend_(backend) {
            entry_.parts.push_back({what, {}});
            log_.poison_dead();
        }
        ~Call() {
            const size_t index = log_.entries_.size();
            log_.entries_.push_back(std::move(entry_));
            for (const size_t value : log_.entries_.back().reads) log_.values_[value].last_read = index;
            for (const auto & [region, value] : outputs_) log_.write(region, value);
            if (!log_.fills_) return;
            for (const Recording::Region & region : scratch_) {
                const bool is_output = std::any_of(outputs_.begin(), outputs_.end(), [&](const auto & output) {
                    return output.first.begin == region.begin && !log_.values_[output.second].is_scratch;
                });
                if (!is_output) fill(region);
            }
        }

        void is_root() { entry_.is_root = true; }
        void text(const std::string & text) { entry_.parts.push_back({" " + text, {}}); }
        void in(const char * role, const Matrix & x) {
            if (x) in(role, region_of(x), shape_of(x));
        }
        void in(const char * role, const Recording::Region & region, const std::string & shape) {
            std::vector<size_t> values;
            for (const Recording::Region & one : log_.find(region)) values.push_back(one.value);
            begin(role, "=", values);
            if (values.empty()) entry_.parts.push_back({log_.parameter_name(region.begin), {}});
            entry_.parts.push_back({shape, {}});
            entry_.reads.insert(entry_.reads.end(), values.begin(), values.end());
        }
        void out(const char * role, const Matrix & x, const std::string & base) {
            if (x) out(role, region_of(x), base, shape_of(x));
        }
        void out(const char * role, const Recording::Region & region, const std::string & base,
                 const std::string & shape) {
            const size_t value = log_.values_.size();
            log_.values_.push_back({base, log_.entries_.size(), false});
            begin(role, "->", {value});
            entry_.parts.push_back({shape, {}});
            entry_.writes.push_back(value);
            outputs_.emplace_back(region, value);
            if (log_.fills_ && log_.find(region).empty()) fill(region);
        }
        void accumulate(const char * role, const Matrix & x, const std::string & base) {
            if (!x) return;
            const std::vector<Recording::Region> before = log_.find(region_of(x));
            std::vector<size_t> values;
            for (const Recording::Region & one : before) values.push_back(one.value);
            entry_.reads.insert(entry_.reads.end(), values.begin(), values.end());
            begin(role, "+=", values);
            out("", x, base);
        }
        // Memory for the call's own use: what it held is gone.
        void memory(const char * role, const Matrix & x) {
            if (!x) return;
            text(std::string(role) + shape_of(x));
            scratch_.push_back(region_of(x));
            const size_t value = log_.values_.size();
            log_.values_.push_back({"undefined", log_.entries_.size(), true});
            outputs_.emplace(outputs_.begin(), region_of(x), value);
        }
        void norm(const Norm & norm, int64_t n) {
            norm_text(norm, n);
            out("rms", norm.statistics, backend_.norm_name(norm, n) + ".rms");
        }
        void norm_backward(const Norm & norm, int64_t n) {
            norm_text(norm, n);
            in("rms", norm.statistics);
        }
        void norm_text(const Norm & norm, int64_t n) {
            text(backend_.norm_name(norm, n) + "(" + number(norm.eps) + ")");
            if (norm.kind == Norm::layer) text("layer");
            if (norm.groups != 1) text("groups=" + std::to_string(norm.groups));
            bias(norm.bias, n / norm.groups);
        }
        void bias(const Vector & bias, int64_t n) {
            if (bias) text("bias=" + backend_.vector_name(bias, n));
        }
        void act(Act act) {
            static constexpr const char * names[] = {"silu", "gelu_tanh", "gelu_erf", "relu", "tanh"};
            if (act != Act::silu) text(names[static_cast<size_t>(act)]);
        }
        void logits(const LogitSpec & logits) {
            if (logits.scale != 1) text("scale=" + number(logits.scale));
            if (logits.cap != 0) text("cap=" + number(logits.cap));
        }
        void rope(const int32_t * positions, int64_t n, const Rope & rope) {
            text("positions=" + checksum(positions, n) + " head_dim=" + std::to_string(rope.head_dim) +
                 " frequencies=" +
                 checksum(reinterpret_cast<const int32_t *>(rope.inverse_frequency.data()),
                          static_cast<int64_t>(2 * rope.inverse_frequency.size())));
            if (rope.halves) text("halves");
            if (rope.magnitude != 1) text("magnitude=" + number(rope.magnitude));
            if (rope.temperature != 0)
                text("temperature=" + number(rope.temperature) + "/" + std::to_string(rope.temperature_length));
        }
        void attention(std::span<const Segment> segments, const AttentionShape & shape) {
            text(std::to_string(shape.n_head) + "/" + std::to_string(shape.n_head_kv) + "x" +
                 std::to_string(shape.head_dim) + " scale=" + number(shape.scale) + segments_text(segments));
            if (shape.mask != MaskSpec{})
                text("back=" + std::to_string(shape.mask.back) + " ahead=" + std::to_string(shape.mask.ahead));
            if (shape.softcap != 0) text("cap=" + number(shape.softcap));
        }
        void gated_backward(Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup) {
            in("gate", gate);
            in("up", up);
            in("dh", dh);
            const std::string gate_name = backend_.base_of(gate), up_name = backend_.base_of(up);
            out("dgate", dgate, "d(" + gate_name + ")");
            out("dup", dup, "d(" + up_name + ")");
        }
        void lora(const Weight & weight, const Lora & lora) {
            const std::string name = backend_.weight_name(weight);
            entry_.parts.push_back({"\n    " + name, {}});
            if (!lora) return;
            in("gate", lora.gate);
            const std::string a = log_.parameter_name(lora.a), b = log_.parameter_name(lora.b);
            text("lora(" + std::to_string(lora.rank) + ", " + number(lora.scale) + ")");
            if (a != name + ".lora_a" || b != name + ".lora_b") text("WRONG PAIR " + a + " " + b);
            if (lora.dropout.p > 0) {
                text("dropout=" + number(lora.dropout.p) + " seed=" + std::to_string(lora.dropout.seed));
                if (lora.dropout.device_seed && *lora.dropout.device_seed != lora.dropout.seed) text("WRONG SEED");
            }
            // Gradients are laid out as parameters are: one distance for all.
            if (!lora.da) return;
            const std::ptrdiff_t distance = static_cast<const std::byte *>(lora.da) -
                                            static_cast<const std::byte *>(static_cast<const void *>(lora.a));
            if (static_cast<const std::byte *>(lora.db) != static_cast<const std::byte *>(lora.b) + distance)
                text("WRONG GRADIENT");
        }
        void layers(std::span<const LinearForward> layers) {
            for (const LinearForward & layer : layers) {
                lora(*layer.weight, layer.lora);
                if (layer.y) in("residual", layer.residual);
                const std::string name = backend_.weight_name(*layer.weight);
                bias(layer.bias, layer.weight->out);
                if (layer.lora) out("u", layer.u, name + ".u");
                out("y", layer.y, name);
            }
        }
        void layers(std::span<const LinearBackward> layers) {
            for (const LinearBackward & layer : layers) {
                lora(*layer.weight, layer.lora);
                if (layer.lora) in("u", layer.u);
                in("dy", layer.dy);
                if (layer.dw) text("+=dw");
                if (layer.dbias) text("+=dbias");
                if (layer.lora || layer.dw || layer.dbias) is_root();
            }
        }

    private:
        void begin(const std::string & role, const std::string & arrow, const std::vector<size_t> & values) {
            entry_.parts.push_back({role.empty() && arrow == "=" ? " " : " " + role + arrow, values});
        }

        Recording & log_;
        RecordingBackend & backend_;
        Recording::Entry entry_;
        std::vector<std::pair<Recording::Region, size_t>> outputs_;
        std::vector<Recording::Region> scratch_;
    };

    static Recording::Region region_of(const Matrix & x) {
        const size_t element = dtype_size(x.type);
        return {static_cast<std::byte *>(x.data), static_cast<size_t>(x.cols) * element,
                static_cast<size_t>(x.stride) * element, x.rows, 0};
    }
    static std::string shape_of(const Matrix & x) {
        const std::string padding = x.stride == x.cols ? "" : "+" + std::to_string(x.stride - x.cols);
        return "[" + std::to_string(x.rows) + "x" + std::to_string(x.cols) + padding + " " + dtype_name(x.type) + "]";
    }
    static std::string checksum(const int32_t * values, int64_t n) {
        char text[16];
        std::snprintf(text, sizeof text, "%08x", crc32c(0, values, static_cast<size_t>(n) * sizeof(int32_t)));
        return text;
    }
    static std::string segments_text(std::span<const Segment> segments) {
        std::string text;
        for (const Segment & s : segments) {
            text += " " + std::to_string(s.q_begin) + "+" + std::to_string(s.q_len) + ":" + std::to_string(s.kv_begin) +
                    "+" + std::to_string(s.kv_len);
        }
        return text;
    }
    std::string base_of(const Matrix & x) const {
        const std::vector<Recording::Region> found = log_->find(region_of(x));
        return found.empty() ? log_->parameter_name(x.data) : log_->values_[found.front().value].base;
    }
    std::string weight_name(const Weight & weight) const { return log_->weight_name(weight.data, 0); }
    std::string norm_name(const Norm & norm, int64_t n) const { return vector_name(norm.weight, n / norm.groups); }
    std::string vector_name(const Vector & values, int64_t n) const {
        return log_->weight_name(values.data, static_cast<size_t>(n) * dtype_size(values.type));
    }

    std::shared_ptr<Recording> log_;
    std::unique_ptr<Backend> to_;
};

std::unique_ptr<Backend> record(std::shared_ptr<Recording> recording, std::unique_ptr<Backend> backend) {
    return std::make_unique<RecordingBackend>(std::move(recording), std::move(backend));
}

}  // namespace lorica::test
