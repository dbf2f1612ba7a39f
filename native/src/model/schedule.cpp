#include "model/schedule.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/error.h"

namespace lorica {

namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

// A node and what is computed in one call with it.
struct Unit {
    int norm = -1;   // a norm that this linear node alone reads
    int main = -1;   // node
    int gated = -1;  // forward: on its two outputs; backward: what made its input
};

void name_makers(Program & p) {
    for (size_t n = 0; n < p.nodes.size(); ++n) {
        for (int8_t o = 0; o < p.nodes[n].n_out; ++o) {
            ValueInfo & made = p.values[at(p.nodes[n].out[at(o)].id)];
            made.maker = static_cast<int16_t>(n);
            made.output = o;
        }
    }
    for (ValueInfo & part : p.values) {
        if (!part.part_of) continue;
        part.maker = p[part.part_of].maker;
        part.output = p[part.part_of].output;
    }
}

// The program with a node for each scale. Such a layer's input is its own, so it leaves the node that it shared; behind
// its output come the residual and all who read it.
Program with_scales(const Program & program, const TrainedSites & sites) {
    Program p = program;
    p.nodes.clear();
    const auto add_value = [&](int64_t cols) {
        p.values.push_back({Format::act, cols});
        return Value{static_cast<int16_t>(p.values.size() - 1)};
    };
    const auto scale = [](int16_t linear, Value x, Value y, Value residual) {
        Node node{Op::scale, linear, 1, 1};
        node.in[0] = x;
        node.out[0] = y;
        node.residual = residual;
        return node;
    };
    for (const Node & node : program.nodes) {
        if (node.op != Op::linear) {
            p.nodes.push_back(node);
            continue;
        }
        for (int8_t first = 0; first < node.n_out;) {
            const auto number = [&](int i) { return static_cast<int16_t>(node.spec + i); };
            const bool in = sites.has(number(first), TrainedSites::scale_in);
            int8_t end = static_cast<int8_t>(first + 1);
            while (!in && end < node.n_out && !sites.has(number(end), TrainedSites::scale_in)) ++end;
            Node part{Op::linear, number(first), 1, static_cast<int8_t>(end - first)};
            part.in[0] = node.in[0];
            part.residual = node.residual;
            if (in) {
                part.in[0] = add_value(program[node.in[0]].cols);
                p.nodes.push_back(scale(number(first), node.in[0], part.in[0], {}));
            }
            std::vector<Node> behind;
            for (int8_t i = first; i < end; ++i) {
                Value & out = part.out[at(i - first)];
                out = node.out[at(i)];
                if (!sites.has(number(i), TrainedSites::scale_out)) continue;
                out = add_value(program[node.out[at(i)]].cols);
                behind.push_back(scale(number(i), out, node.out[at(i)], std::exchange(part.residual, {})));
            }
            p.nodes.push_back(part);
            p.nodes.insert(p.nodes.end(), behind.begin(), behind.end());
            first = end;
        }
    }
    name_makers(p);
    return p;
}

bool is_branch(const Node & node) { return node.residual && (node.op == Op::linear || node.op == Op::norm); }

Value new_value(Program & p, Format format, int64_t cols) {
    p.values.push_back({format, cols});
    return Value{static_cast<int16_t>(p.values.size() - 1)};
}

Node one_to_one(Op op, int16_t spec, Value x, Value y, Value residual = {}) {
    Node node{op, spec, 1, 1};
    node.in[0] = x;
    node.out[0] = y;
    node.residual = residual;
    return node;
}

// The norm that alone reads what a branch has been added to, where norms come behind the sum.
const Node * norm_behind(const Program & program, Value sum) {
    const Node * found = nullptr;
    for (const Node & node : program.nodes) {
        const bool reads = std::find(node.in.begin(), node.in.begin() + node.n_in, sum) != node.in.begin() + node.n_in;
        if (!reads && node.residual != sum) continue;
        if (found || node.op != Op::norm || node.residual == sum) return nullptr;
        found = &node;
    }
    return sum == program.output ? nullptr : found;
}

// The program with nodes for bottlenecks, whose layers come behind its own.
Program with_bottlenecks(const Program & program, const BottleneckSites & sites) {
    Program p = program;
    p.nodes.clear();
    int place = 0;
    for (const Node & node : program.nodes) {
        if (!is_branch(node)) {
            p.nodes.push_back(node);
            continue;
        }
        const ValueInfo of_out = program[node.out[0]];
        const int64_t n = of_out.cols, width = sites.width(place++);
        const auto down = static_cast<int16_t>(p.linears.size()), up = static_cast<int16_t>(down + 1);
        p.linears.push_back({{"adapter_down", "adapter_down"}, width, n, true});
        p.linears.push_back({{"adapter_up", "adapter_up"}, n, width, true});
        if (width == 0) {
            p.nodes.push_back(node);
            continue;
        }
        Node branch = node;
        Value x, sum;
        if (sites.on_stream) {
            x = sum = branch.out[0] = new_value(p, of_out.format, n);
            p.nodes.push_back(branch);
            if (const Node * norm = norm_behind(program, node.out[0])) {
                x = new_value(p, Format::act, n);
                p.nodes.push_back(one_to_one(Op::norm, norm->spec, sum, x));
            }
        } else {
            x = branch.out[0] = new_value(p, Format::act, n);
            branch.residual = {};
            p.nodes.push_back(branch);
        }
        const Value narrow = new_value(p, Format::act, width), active = new_value(p, Format::act, width);
        p.nodes.push_back(one_to_one(Op::linear, down, x, narrow));
        p.nodes.push_back(one_to_one(Op::activation, static_cast<int16_t>(sites.act), narrow, active));
        if (!sites.on_stream) {
            sum = new_value(p, of_out.format, n);
            p.nodes.push_back(one_to_one(Op::scale, -1, x, sum, node.residual));
        }
        p.nodes.push_back(one_to_one(Op::linear, up, active, node.out[0], sum));
    }
    name_makers(p);
    return p;
}

class Derivation {
public:
    Derivation(const Program & program, const TrainedSites & sites, const Wanted & wanted)
        : p_(program), sites_(sites), w_(wanted) {
        find_readers();
        find_streams();
        find_needs();
        find_flow();
    }

    BlockPlan plan() {
        const std::vector<Unit> units = forward_units();
        const std::vector<Unit> order = w_.backward ? backward_order() : std::vector<Unit>{};
        for (const Unit & unit : order) mark_reads(unit);
        for (const Node & n :
             p_.nodes) {  // anchors: so much costs no more than the input, and spares the longest operation
            if (w_.recomputed && !order.empty() && n.op == Op::attention) kept_[at(n.out[0].id)] = true;
        }
        for (const Unit & unit : units) emit(unit, true);
        plan_.forward.swap(calls_);
        if (!w_.backward) return std::move(plan_);
        if (w_.recomputed && !order.empty()) recompute(units);
        const std::vector<bool> writes_twin = twin_writers();
        twin_is_current_ = w_.twin_in;
        has_gradient_.assign(p_.values.size(), false);
        if (!is_epilogue()) has_gradient_[at(stream_of(p_.output))] = true;
        for (const Unit & unit : order) emit_backward(unit, writes_twin);
        plan_.leaves_twin = w_.twin_out && twin_is_current_ && is_outer(p_.input);
        plan_.backward.swap(calls_);
        return std::move(plan_);
    }

    // The order of the backward calls, for who asks about that alone.
    std::vector<bool> twin_writers() const;

private:
    const Node & node(int i) const { return p_.nodes[at(i)]; }
    const ValueInfo & info(Value v) const { return p_[v]; }
    Value whole(Value v) const { return info(v).part_of ? info(v).part_of : v; }
    int maker(Value v) const { return info(v).maker; }
    bool is_epilogue() const { return !p_.heads.empty(); }
    // Of rows that the batch picks.
    bool is_picked() const {
        return std::any_of(p_.nodes.begin(), p_.nodes.end(), [](const Node & n) { return n.op == Op::pool; });
    }

    // ---- the graph

    void find_readers() {
        readers_.resize(p_.values.size());
        for (int n = 0; n < static_cast<int>(p_.nodes.size()); ++n) {
            for (int i = 0; i < node(n).n_in; ++i) readers_[at(node(n).in[at(i)].id)].push_back(n);
            if (node(n).residual) readers_[at(node(n).residual.id)].push_back(n);
        }
    }

    bool alone_reads(int n, Value v) const {
        return readers_[at(v.id)].size() == 1 && readers_[at(v.id)][0] == n && v != p_.output && !is_split(v);
    }
    bool is_split(Value v) const {
        return std::any_of(p_.values.begin(), p_.values.end(), [&](const ValueInfo & i) { return i.part_of == v; });
    }

    // The norm that a linear node can take with it, or -1.
    int norm_of(int n) const {
        if (node(n).op != Op::linear) return -1;
        const Value x = node(n).in[0];
        const int m = maker(x);
        if (m < 0 || node(m).op != Op::norm || !alone_reads(n, x)) return -1;
        const bool fits = !node(m).residual && p_.norms[at(node(m).spec)].groups == 1 &&
                          info(node(m).in[0]).format == Format::hidden && info(x).format == Format::act;
        // The gradient of a norm's weight is computed between the two.
        return fits && !node(n).residual && !(w_.backward && trains_norm(m)) ? m : -1;
    }

    bool trains_norm(int n) const {
        return node(n).op == Op::norm && TrainedSites::has(sites_.norms, node(n).spec, TrainedSites::weight);
    }

    bool has_prefix(int n) const {
        return node(n).op == Op::attention && TrainedSites::has(sites_.attentions, node(n).spec, TrainedSites::prefix);
    }

    static bool trains_scale(const Node & n) { return n.op == Op::scale && n.spec >= 0; }

    bool trains_embed(int n) const {
        constexpr uint8_t rows = TrainedSites::weight | TrainedSites::virtual_rows;
        return node(n).op == Op::embed && TrainedSites::has(sites_.embeds, node(n).spec, rows);
    }

    // The gated node that reads exactly the two outputs of a linear node, or -1.
    int gated_after(int n) const {
        const Node & linear = node(n);
        if (linear.n_out != 2 || norm_of(n) < 0) return -1;
        const std::vector<int> & readers = readers_[at(linear.out[0].id)];
        if (readers.size() != 1) return -1;
        const int g = readers[0];
        const bool fits = node(g).op == Op::gated && node(g).in[0] == linear.out[0] && node(g).in[1] == linear.out[1] &&
                          alone_reads(g, linear.out[0]) && alone_reads(g, linear.out[1]) && !has_tail(linear.spec) &&
                          !has_tail(static_cast<int16_t>(linear.spec + 1));
        return fits ? g : -1;
    }

    // The gated node whose output a single linear layer alone reads, or -1.
    int gated_before(int n) const {
        if (node(n).op != Op::linear) return -1;
        const Value x = node(n).in[0];
        const int g = maker(x);
        const bool fits = node(n).n_out == 1 && g >= 0 && node(g).op == Op::gated && alone_reads(n, x);
        return fits ? g : -1;
    }

    bool has_lora(int linear) const { return sites_.has(static_cast<int16_t>(linear), TrainedSites::lora); }
    // Anything whose gradient is that of the layer, or a product of it with what goes in.
    bool is_trained(int linear) const {
        return sites_.has(static_cast<int16_t>(linear), TrainedSites::lora | TrainedSites::bias | TrainedSites::weight);
    }
    // Anything whose gradient is a product with what goes into the layer.
    bool reads_input(int linear) const {
        return sites_.has(static_cast<int16_t>(linear), TrainedSites::lora | TrainedSites::weight);
    }
    bool has_tail(int linear) const { return sites_.has(static_cast<int16_t>(linear), TrainedSites::dora); }

    std::vector<Unit> forward_units() const {
        std::vector<bool> taken(p_.nodes.size());
        std::vector<Unit> units;
        for (int n = 0; n < static_cast<int>(p_.nodes.size()); ++n) {
            if (node(n).op != Op::linear) continue;
            if (const int m = norm_of(n); m >= 0) taken[at(m)] = true;
            if (const int g = gated_after(n); g >= 0) taken[at(g)] = true;
        }
        for (int n = 0; n < static_cast<int>(p_.nodes.size()); ++n) {
            if (taken[at(n)]) continue;
            if (node(n).op == Op::linear) {
                units.push_back({norm_of(n), n, gated_after(n)});
            } else {
                units.push_back({-1, n, -1});
            }
        }
        return units;
    }

    // Memory of a value: what is rotated stays where it was, and a part lies in the whole.
    Value storage(Value v) const {
        v = whole(v);
        const int m = maker(v);
        if (m >= 0 && node(m).op == Op::rope) return storage(node(m).in[at(info(v).output)]);
        if (m >= 0 && node(m).op == Op::embed && node(m).n_in == 1) return storage(node(m).in[0]);
        return v;
    }

    // ---- gradients: streams, needs, flow

    // Values joined by residuals: the stream is named by its first value, and each has a place in it.
    void find_streams() {
        stream_.resize(p_.values.size());
        place_.assign(p_.values.size(), 0);
        for (int16_t v = 0; v < static_cast<int16_t>(p_.values.size()); ++v) stream_[at(v)] = v;
        for (const Node & n : p_.nodes) {
            for (int i = 0; i < n.n_out; ++i) {
                const Value v = n.out[at(i)], above = residual_of(v);
                if (!above) continue;
                stream_[at(v.id)] = stream_[at(above.id)];
                place_[at(v.id)] = place_[at(above.id)] + 1;
            }
        }
    }
    Value residual_of(Value v) const {
        const int m = maker(v);
        if (m < 0 || info(v).part_of) return {};
        return node(m).op == Op::embed && node(m).n_in == 1 ? node(m).in[0] : node(m).residual;
    }
    int stream_of(Value v) const { return stream_[at(whole(v).id)]; }
    int place_of(Value v) const { return place_[at(whole(v).id)]; }
    // That the gradient of the output comes in, which has room of its own.
    bool is_outer(Value v) const { return stream_of(v) == stream_of(p_.output); }

    void find_needs() {
        needs_.assign(p_.values.size(), false);
        if (p_.input) needs_[at(p_.input.id)] = w_.dx;
        for (const Node & n : p_.nodes) {
            bool any = n.residual && needs(n.residual);
            for (int i = 0; i < n.n_in; ++i) any = any || needs(n.in[at(i)]);
            const auto number = static_cast<int>(&n - p_.nodes.data());
            any = any || trains_scale(n) || trains_norm(number) || trains_embed(number) || has_prefix(number);
            for (int i = 0; i < n.n_out; ++i) {
                needs_[at(n.out[at(i)].id)] = any || (n.op == Op::linear && is_trained(n.spec + i));
            }
        }
    }
    bool needs(Value v) const { return needs_[at(whole(v).id)]; }
    bool needs_any(const Node & n) const {
        for (int i = 0; i < n.n_in; ++i) {
            if (needs(n.in[at(i)])) return true;
        }
        return false;
    }

    bool is_written(Value v) const {
        if (written_[at(v.id)]) return true;
        for (size_t i = 0; i < p_.values.size(); ++i) {
            if (p_.values[i].part_of == v && written_[i]) return true;
        }
        return false;
    }

    void find_flow() {
        written_.assign(p_.values.size(), false);
        runs_.assign(p_.nodes.size(), false);
        if (!w_.backward) return;
        written_[at(p_.output.id)] = true;
        for (int i = static_cast<int>(p_.nodes.size()); i-- > 0;) {
            const Node & n = node(i);
            bool any_written = false, any_trained = false;
            for (int o = 0; o < n.n_out; ++o) {
                if (!is_written(n.out[at(o)])) continue;
                any_written = true;
                any_trained = any_trained || (n.op == Op::linear && is_trained(n.spec + o));
            }
            if (!any_written) continue;
            if (const Value above = residual_of(n.out[0])) written_[at(above.id)] = true;
            switch (n.op) {
                case Op::embed: runs_[at(i)] = trains_embed(i); break;
                case Op::norm:
                case Op::scale:
                    runs_[at(i)] = needs(n.in[0]) || trains_scale(n) || trains_norm(i);
                    if (needs(n.in[0])) written_[at(n.in[0].id)] = true;
                    break;
                case Op::linear:
                    runs_[at(i)] = any_trained || needs(n.in[0]);
                    if (needs(n.in[0])) written_[at(n.in[0].id)] = true;
                    break;
                case Op::rope:
                    runs_[at(i)] = true;
                    for (int j = 0; j < n.n_in; ++j) {
                        if (is_written(n.out[at(j)])) written_[at(n.in[at(j)].id)] = true;
                    }
                    break;
                case Op::head:  // the forward pass leaves the gradient of its input
                    written_[at(n.in[0].id)] = needs(n.in[0]);
                    break;
                default:
                    runs_[at(i)] = needs_any(n) || has_prefix(i);
                    for (int j = 0; j < n.n_in && runs_[at(i)]; ++j) written_[at(n.in[at(j)].id)] = true;
            }
        }
    }

    std::vector<Value> gradients_read(const Unit & unit) const {
        std::vector<Value> values;
        for (int o = 0; o < node(unit.main).n_out; ++o) {
            if (is_written(node(unit.main).out[at(o)])) values.push_back(node(unit.main).out[at(o)]);
        }
        return values;
    }
    std::vector<Value> gradients_written(const Unit & unit) const {
        const int last = unit.norm >= 0 ? unit.norm : unit.gated >= 0 ? unit.gated : unit.main;
        std::vector<Value> values;
        if (last != unit.main && !runs_[at(last)]) return values;
        const Op op = node(last).op;
        if (op == Op::embed) return values;  // the sum that it adds to has the same gradient
        const bool one_by_one = op == Op::linear || op == Op::norm || op == Op::scale;
        for (int i = 0; i < node(last).n_in; ++i) {
            if (!one_by_one || needs(node(last).in[at(i)])) values.push_back(node(last).in[at(i)]);
        }
        return values;
    }

    // That of the program backwards, but each stream's gradient is read when all later values' readers have added to it
    // and no earlier one's has.
    std::vector<Unit> backward_order() const {
        std::vector<Unit> units;
        for (int n = static_cast<int>(p_.nodes.size()); n-- > 0;) {
            if (!runs_[at(n)] || is_taken_backward(n)) continue;
            units.push_back({norm_of(n), n, gated_before(n)});
        }
        const auto comes_before = [&](const Unit & a, const Unit & b) {  // a must
            for (const Value w : gradients_written(a)) {
                for (const Value r : gradients_read(b)) {
                    if (stream_of(w) == stream_of(r) && place_of(w) >= place_of(r)) return true;
                }
            }
            for (const Value r : gradients_read(a)) {
                for (const Value w : gradients_written(b)) {
                    if (stream_of(w) == stream_of(r) && place_of(w) < place_of(r)) return true;
                }
            }
            return false;
        };
        std::vector<Unit> order;
        while (!units.empty()) {
            const auto next = std::find_if(units.begin(), units.end(), [&](const Unit & unit) {
                return std::none_of(units.begin(), units.end(), [&](const Unit & other) {
                    return other.main != unit.main && comes_before(other, unit);
                });
            });
            if (next == units.end()) {
                fail(LORICA_ERROR_INTERNAL, "the backward pass of a block has no order: its residuals go in a circle");
            }
            order.push_back(*next);
            units.erase(next);
        }
        return order;
    }

    // A norm or gated node that goes with a linear node.
    bool is_taken_backward(int n) const {
        if (node(n).op != Op::norm && node(n).op != Op::gated) return false;
        const std::vector<int> & readers = readers_[at(node(n).out[0].id)];
        return readers.size() == 1 && runs_[at(readers[0])] &&
               (norm_of(readers[0]) == n || gated_before(readers[0]) == n);
    }

    // ---- what backward reads, and how it gets there

    // Made again from what is kept, or with it kept in the first place.
    bool is_restorable(Value v) const {
        if (info(v).part_of) return false;
        const int m = maker(v);
        if (m < 0) return false;
        const Op op = node(m).op;
        if (op == Op::rope) return is_restorable(node(m).in[at(info(v).output)]);
        return op == Op::norm || op == Op::gated || op == Op::activation || op == Op::scale;
    }
    bool is_given(Value v) const { return v == p_.input || v == p_.output; }

    void reads(Value v) {
        if (is_given(v)) return;
        if (w_.recomputed) {
            read_[at(v.id)] = true;
        } else if (is_restorable(v)) {
            const Node & n = node(maker(v));
            for (int i = 0; i < n.n_in; ++i) reads(n.in[at(i)]);
            if (n.residual) reads(n.residual);
        } else {
            kept_[at(storage(v).id)] = true;
        }
    }

    void mark_reads(const Unit & unit) {
        read_.resize(p_.values.size());
        kept_.resize(p_.values.size());
        statistics_read_.resize(p_.nodes.size());
        u_read_.resize(p_.linears.size());
        const Node & n = node(unit.main);
        switch (n.op) {
            case Op::linear: {
                bool any_product = false;
                for (int i = 0; i < n.n_out; ++i) {
                    if (!is_written(n.out[at(i)])) continue;
                    any_product = any_product || reads_input(n.spec + i);
                    if (!has_lora(n.spec + i)) continue;
                    u_read_[at(n.spec + i)] = true;
                    if (!has_tail(n.spec + i)) continue;
                    reads(n.out[at(i)]);
                    if (n.residual) reads(n.residual);
                }
                if (unit.norm >= 0) {
                    reads(node(unit.norm).in[0]);
                    statistics_read_[at(unit.norm)] = true;
                } else if (unit.gated >= 0) {
                    reads(node(unit.gated).in[0]);
                    reads(node(unit.gated).in[1]);
                } else if (any_product) {
                    reads(n.in[0]);
                }
                break;
            }
            case Op::scale:
                if (n.spec >= 0) reads(n.in[0]);
                break;
            case Op::norm:
                reads(n.in[0]);
                statistics_read_[at(unit.main)] = true;
                break;
            case Op::attention:
                for (const int i : {0, 1, 2}) reads(n.in[at(i)]);
                reads(n.out[0]);
                statistics_read_[at(unit.main)] = true;
                break;
            case Op::gated:
            case Op::activation:
                for (int i = 0; i < n.n_in; ++i) reads(n.in[at(i)]);
                break;
            default: break;
        }
    }

    // ---- slots

    SlotId new_slot(Slot slot) {
        slot.picked = is_picked() && slot.place != Slot::input && slot.place != Slot::d_input;
        plan_.slots.push_back(slot);
        return static_cast<SlotId>(plan_.slots.size() - 1);
    }
    SlotId outer(Slot::Place place, Format format, int64_t cols) {
        for (size_t i = 0; i < plan_.slots.size(); ++i) {
            if (plan_.slots[i].place == place) return static_cast<SlotId>(i);
        }
        return new_slot({place, format, cols});
    }
    SlotId temporary(Format format, int64_t cols) { return new_slot({Slot::temporary, format, cols}); }
    SlotId part(SlotId whole, int64_t first_col, int64_t cols) {
        for (size_t i = 0; i < plan_.slots.size(); ++i) {
            const Slot & s = plan_.slots[i];
            if (s.part_of == whole && s.first_col == first_col && s.cols == cols) return static_cast<SlotId>(i);
        }
        Slot slot = plan_.slots[at(whole)];
        slot.cols = cols;
        slot.part_of = whole;
        slot.first_col = first_col;
        plan_.slots.push_back(slot);
        return static_cast<SlotId>(plan_.slots.size() - 1);
    }

    // Of columns of a value within its storage.
    int64_t first_col(Value v) const {
        if (info(v).part_of) return info(v).first_col + first_col(info(v).part_of);
        const int m = maker(v);
        return m >= 0 && node(m).op == Op::rope ? first_col(node(m).in[at(info(v).output)]) : 0;
    }
    SlotId in_storage(std::vector<SlotId> & slots, Value v, SlotId whole) {
        const Value store = storage(v);
        slots.resize(p_.values.size(), no_slot);
        slots[at(store.id)] = whole;
        return info(v).cols == info(store).cols ? whole : part(whole, first_col(v), info(v).cols);
    }

    bool is_kept(Value store) const { return w_.backward && !kept_.empty() && kept_[at(store.id)]; }

    SlotId slot(Value v) {
        const Value store = storage(v);
        value_slots_.resize(p_.values.size(), no_slot);
        SlotId & found = value_slots_[at(store.id)];
        if (found == no_slot) {
            const ValueInfo & i = info(store);
            if (store == p_.input) {
                found = outer(Slot::input, i.format, i.cols);
            } else if (store == storage(p_.output)) {
                found = is_epilogue() ? outer(Slot::nll, Format::hidden, 1) : outer(Slot::output, i.format, i.cols);
            } else if (maker(store) >= 0 && node(maker(store)).op == Op::pool && w_.cache) {
                found = slot(node(maker(store)).in[0]);
            } else {
                const bool is_rows = is_picked() && w_.backward && node(maker(store)).op == Op::pool;
                found = new_slot({is_kept(store) || is_rows ? Slot::kept : Slot::temporary, i.format, i.cols});
            }
        }
        return in_storage(value_slots_, v, value_slots_[at(store.id)]);
    }
    // Statistics of a norm, log-sum-exp of an attention.
    // Empty where a recomputed layer has not made them again: a norm's backward then computes what it needs of them.
    SlotId made_statistics(int n) { return w_.recomputed && !remade_[at(n)] ? no_slot : statistics(n); }
    SlotId statistics(int n) {
        if (is_picked() || (node(n).op == Op::attention && w_.cache)) return no_slot;
        statistics_slots_.resize(p_.nodes.size(), no_slot);
        SlotId & found = statistics_slots_[at(n)];
        if (found == no_slot) {
            const bool is_norm = node(n).op == Op::norm;
            const bool kept = w_.backward && statistics_read_.size() > at(n) && statistics_read_[at(n)] &&
                              (!w_.recomputed || !is_norm);
            found = new_slot({kept ? Slot::kept : Slot::temporary, Format::hidden, statistics_cols(n)});
        }
        return found;
    }
    int64_t statistics_cols(int n) const {
        if (node(n).op == Op::attention) return p_.attentions[at(node(n).spec)].n_head;
        const NormSpec & norm = p_.norms[at(node(n).spec)];
        return norm.groups * (norm.kind == Norm::layer ? 2 : 1);
    }
    SlotId u(int linear) {
        if (!has_lora(linear)) return no_slot;
        u_slots_.resize(p_.linears.size(), no_slot);
        SlotId & found = u_slots_[at(linear)];
        if (found == no_slot) {
            const bool kept = w_.backward && !w_.recomputed && u_read_.size() > at(linear) && u_read_[at(linear)];
            found = new_slot({kept ? Slot::kept : Slot::temporary, Format::act, 0, true});
        }
        return found;
    }

    Format gradient_format(Value v) const {
        if (info(v).format == Format::hidden) return Format::hidden;
        const int m = maker(whole(v));
        return m >= 0 && node(m).op == Op::norm ? info(node(m).in[0]).format : Format::act;
    }
    // Of a value's gradient.
    SlotId gradient(Value v) {
        const Value store = storage(v);
        gradient_slots_.resize(p_.values.size(), no_slot);
        if (gradient_slots_[at(store.id)] == no_slot) {
            // Values of one stream share it.
            const int stream = stream_of(store);
            SlotId found = no_slot;
            if (!is_epilogue() && stream == stream_of(p_.output)) {
                found = outer(Slot::d_output, Format::hidden, info(p_.output).cols);
            } else if (p_.input && stream == stream_of(p_.input)) {
                found = outer(Slot::d_input, Format::hidden, info(p_.input).cols);
            } else if (stream != store.id) {
                found = gradient({static_cast<int16_t>(stream)});
            } else {
                const bool from_forward = is_epilogue() && node(readers_[at(store.id)][0]).op == Op::head;
                found =
                    new_slot({from_forward ? Slot::kept : Slot::temporary, gradient_format(store), info(store).cols});
            }
            gradient_slots_[at(store.id)] = found;
        }
        return in_storage(gradient_slots_, v, gradient_slots_[at(store.id)]);
    }

    // ---- calls

    Call & call(Call::Kind kind, int16_t spec = -1) {
        calls_.push_back({kind, spec});
        return calls_.back();
    }

    // The layers of a linear node. without_outputs: only the adapters' halves are wanted.
    std::vector<LayerCall> forward_layers(const Node & n, bool without_outputs) {
        std::vector<LayerCall> layers;
        for (int i = 0; i < n.n_out; ++i) {
            LayerCall layer{static_cast<int16_t>(n.spec + i)};
            layer.u = u(layer.linear);
            if (!without_outputs) {
                const bool in_tail = has_tail(layer.linear);
                if (n.residual && !in_tail) layer.residual = slot(n.residual);
                layer.y = slot(n.out[at(i)]);
                layer.has_bias = p_.linears[at(layer.linear)].bias && !in_tail;
            }
            layers.push_back(layer);
        }
        return layers;
    }

    void emit_tails(const Node & n) {
        for (int i = 0; i < n.n_out; ++i) {
            const auto linear = static_cast<int16_t>(n.spec + i);
            if (!has_tail(linear)) continue;
            const SlotId y = slot(n.out[at(i)]), residual = n.residual ? slot(n.residual) : no_slot;
            Call & tail = call(Call::scale);
            tail.x = tail.y = y;
            tail.residual = residual;
            tail.layers.push_back({linear, no_slot, no_slot, no_slot, p_.linears[at(linear)].bias});
        }
    }

    // The forward calls of a unit. with_gated: the output of its gated node is wanted as well.
    void emit(const Unit & unit, bool with_gated, bool without_outputs = false) {
        const Node & n = node(unit.main);
        switch (n.op) {
            case Op::embed: emit_embed(n); return;
            case Op::linear: break;
            case Op::norm: emit_norm(unit.main, statistics(unit.main)); return;
            case Op::scale: emit_scale(n); return;
            case Op::rope:
                if (w_.cache && goes_into_cache(unit.main)) return;
                for (int i = 0; i < n.n_out; ++i) emit_rope(n, i, RopeDirection::forward);
                return;
            case Op::attention: emit_attention(unit.main); return;
            case Op::gated:
            case Op::activation: emit_activation(n); return;
            case Op::pool: {
                if (w_.cache) return;
                const SlotId x = slot(n.in[0]), y = slot(n.out[0]);
                Call & pick = call(Call::pick);
                pick.x = x;
                pick.y = y;
                return;
            }
            case Op::head: {
                const SlotId x = slot(n.in[0]), nll = slot(n.out[0]);
                const SlotId dx = is_written(n.in[0]) ? gradient(n.in[0]) : no_slot;
                Call & head = call(Call::head, n.spec);
                head.x = x;
                head.y = nll;
                head.dx = dx;
                return;
            }
        }
        std::vector<LayerCall> layers = forward_layers(n, without_outputs);
        if (unit.norm < 0) {
            const SlotId x = slot(n.in[0]);
            Call & linear = call(Call::linear);
            linear.x = x;
            linear.layers = std::move(layers);
        } else {
            const bool gated = unit.gated >= 0 && with_gated;
            const Node & norm = node(unit.norm);
            const SlotId x = slot(norm.in[0]), stats = statistics(unit.norm), normed = slot(n.in[0]);
            const SlotId h = gated ? slot(node(unit.gated).out[0]) : no_slot;
            Call & all = call(gated ? Call::norm_linear_gated : Call::norm_linear, norm.spec);
            all.x = x;
            all.statistics = stats;
            all.normed = normed;
            all.h = h;
            if (gated) all.act = static_cast<Act>(node(unit.gated).spec);
            all.layers = std::move(layers);
        }
        if (!without_outputs) emit_tails(n);
    }

    void emit_embed(const Node & n) {
        const SlotId y = slot(n.out[0]);
        Call & embed = call(Call::embed, n.spec);
        embed.y = y;
        embed.accumulate = n.n_in == 1;
        if (w_.noise && p_.embeds[at(n.spec)].index == EmbedSpec::token) call(Call::noise).y = y;
    }

    void emit_norm(int n, SlotId stats) {
        const SlotId x = slot(node(n).in[0]), y = slot(node(n).out[0]);
        const SlotId residual = node(n).residual ? slot(node(n).residual) : no_slot;
        Call & norm = call(Call::norm, node(n).spec);
        norm.x = x;
        norm.y = y;
        norm.residual = residual;
        norm.statistics = stats;
    }

    void emit_scale(const Node & n) {
        const SlotId x = slot(n.in[0]), y = slot(n.out[0]), residual = n.residual ? slot(n.residual) : no_slot;
        Call & scale = call(Call::multiply);
        scale.x = x;
        scale.y = y;
        scale.residual = residual;
        if (n.spec >= 0) scale.layers.push_back({n.spec});
    }

    void emit_rope(const Node & n, int output, RopeDirection direction) {
        const SlotId y = slot(n.out[at(output)]);
        Call & rope = call(Call::rope, n.spec);
        rope.y = y;
        rope.direction = direction;
    }

    bool goes_into_cache(int rope) const {
        const Node & n = node(rope);
        return std::all_of(n.out.begin(), n.out.begin() + n.n_out, [&](Value v) {
            const std::vector<int> & readers = readers_[at(v.id)];
            return readers.size() == 1 && node(readers[0]).op == Op::attention;
        });
    }

    // Whether k is rotated as q is, without its temperature.
    bool is_rope_of_cache(int16_t of_q, int rope_of_k) const {
        if (rope_of_k < 0 || node(rope_of_k).op != Op::rope) return false;
        RopeSpec spec = p_.ropes[at(of_q)];
        if (node(rope_of_k).spec == of_q) return spec.temperature == 0;
        spec.temperature = 0;
        spec.temperature_length = 1;
        return spec == p_.ropes[at(node(rope_of_k).spec)];
    }

    void emit_attention(int n) {
        const Node & attention = node(n);
        SlotId q = slot(attention.in[0]), k = slot(attention.in[1]), v = slot(attention.in[2]);
        if (w_.cache) {
            const int rope = maker(whole(attention.in[0]));
            const bool rotates = rope >= 0 && node(rope).op == Op::rope;
            if (rotates && !is_rope_of_cache(node(rope).spec, maker(whole(attention.in[1]))))
                fail(LORICA_ERROR_INTERNAL, "q and k of a description are rotated differently");
            const SlotId k_cache = outer(Slot::k_cache, Format::act, info(attention.in[1]).cols);
            const SlotId v_cache = outer(Slot::v_cache, Format::act, info(attention.in[2]).cols);
            Call & into = call(Call::rope_into_cache, rotates ? node(rope).spec : int16_t{-1});
            into.q = q;
            into.k = k;
            into.v = v;
            into.k_cache = k = k_cache;
            into.v_cache = v = v_cache;
        }
        emit_prefix(n, k, v);
        const SlotId o = slot(attention.out[0]), lse = statistics(n);
        Call & all = call(Call::attention, attention.spec);
        all.q = q;
        all.k = k;
        all.v = v;
        all.o = o;
        all.lse = lse;
    }

    void emit_prefix(int n, SlotId k, SlotId v) {
        if (!has_prefix(n)) return;
        Call & prefix = call(Call::prefix, node(n).spec);
        prefix.k = k;
        prefix.v = v;
    }

    void emit_activation(const Node & n) {
        const SlotId a = slot(n.in[0]), b = n.op == Op::gated ? slot(n.in[1]) : no_slot, out = slot(n.out[0]);
        Call & all = call(n.op == Op::gated ? Call::gated : Call::activation);
        all.act = static_cast<Act>(n.spec);
        if (n.op == Op::gated) {
            all.gate = a;
            all.up = b;
            all.h = out;
        } else {
            all.x = a;
            all.y = out;
        }
    }

    // ---- restoring

    // Of a recomputed layer: the forward calls without those whose results nobody reads.
    void recompute(const std::vector<Unit> & units) {
        std::vector<bool> read = read_;
        const auto is_read = [&](Value v) {
            if (read[at(v.id)]) return true;
            for (size_t i = 0; i < p_.values.size(); ++i) {
                if (p_.values[i].part_of == v && read[i]) return true;
            }
            return false;
        };
        struct Kept {
            Unit unit;
            bool with_gated, without_outputs;
        };
        std::vector<Kept> kept;
        for (size_t i = units.size(); i-- > 0;) {
            const Unit & unit = units[i];
            const Node & n = node(unit.main);
            if (n.op == Op::attention) continue;
            const bool gated = unit.gated >= 0 && is_read(node(unit.gated).out[0]);
            if (gated) {
                for (int j = 0; j < 2; ++j) read[at(node(unit.gated).in[at(j)].id)] = true;
            }
            bool outputs = false, halves = false;
            for (int j = 0; j < n.n_out; ++j) {
                outputs = outputs || is_read(n.out[at(j)]);
                halves = halves || (n.op == Op::linear && u_read_[at(n.spec + j)]);
            }
            if (!outputs && !halves) continue;
            kept.push_back({unit, gated, !outputs});
            const int first = unit.norm >= 0 ? unit.norm : unit.main;
            for (int j = 0; j < node(first).n_in; ++j) mark(read, node(first).in[at(j)]);
            if (n.residual && outputs) mark(read, n.residual);
        }
        remade_.assign(p_.nodes.size(), false);
        for (size_t i = kept.size(); i-- > 0;) {
            const Unit & unit = kept[i].unit;
            remade_[at(unit.norm >= 0 ? unit.norm : unit.main)] = true;
            emit(unit, kept[i].with_gated, kept[i].without_outputs);
        }
        restored_.assign(p_.values.size(), true);
    }
    void mark(std::vector<bool> & read, Value v) const {
        if (!is_given(v)) read[at(v.id)] = true;
    }

    // Sees to it that the slot of v holds v.
    void restore(Value v) {
        if (is_given(v)) return;
        restored_.resize(p_.values.size(), false);
        undone_.resize(p_.values.size(), false);
        const bool from_kept = w_.recomputed || !is_restorable(v);
        if (from_kept) {
            undo_ropes(v);
            return;
        }
        if (restored_[at(v.id)]) return;
        restored_[at(v.id)] = true;
        const int m = maker(v);
        if (node(m).op == Op::rope) {
            restore(node(m).in[at(info(v).output)]);
            emit_rope(node(m), info(v).output, RopeDirection::forward);
            return;
        }
        for (int i = 0; i < node(m).n_in; ++i) restore(node(m).in[at(i)]);
        if (node(m).residual) restore(node(m).residual);
        switch (node(m).op) {
            case Op::norm: emit_norm(m, no_slot); return;
            case Op::scale: emit_scale(node(m)); return;
            default: emit_activation(node(m));
        }
    }
    // What was rotated in place is rotated back, once nothing reads it any more.
    void undo_ropes(Value v) {
        for (const Node & n : p_.nodes) {
            if (n.op != Op::rope) continue;
            for (int i = 0; i < n.n_in; ++i) {
                const Value in = n.in[at(i)];
                if ((in != v && whole(in) != v) || undone_[at(in.id)]) continue;
                undone_[at(in.id)] = true;
                emit_rope(n, i, RopeDirection::undo);
            }
        }
    }

    // ---- backward calls

    void emit_backward(const Unit & unit, const std::vector<bool> & writes_twin) {
        const Node & n = node(unit.main);
        switch (n.op) {
            case Op::linear: emit_linear_backward(unit, writes_twin); return;
            case Op::norm: emit_norm_backward(unit.main, writes_twin); return;
            case Op::scale: emit_scale_backward(n); return;
            case Op::rope:
                for (int i = 0; i < n.n_out; ++i) {
                    if (!is_written(n.out[at(i)])) continue;
                    const SlotId d = gradient(n.out[at(i)]);
                    Call & rope = call(Call::rope, n.spec);
                    rope.y = d;
                    rope.direction = RopeDirection::backward;
                }
                return;
            case Op::attention: {
                for (const int i : {0, 1, 2}) restore(n.in[at(i)]);
                for (const int i : {0, 1, 2}) begin_gradient(n.in[at(i)]);
                const SlotId q = slot(n.in[0]), k = slot(n.in[1]), v = slot(n.in[2]), o = slot(n.out[0]);
                const SlotId lse = statistics(unit.main), dy = gradient(n.out[0]);
                const SlotId dq = gradient(n.in[0]), dk = gradient(n.in[1]), dv = gradient(n.in[2]);
                emit_prefix(unit.main, k, v);  // where keys have been made again
                Call & all = call(Call::attention_backward, n.spec);
                all.q = q;
                all.k = k;
                all.v = v;
                all.o = o;
                all.lse = lse;
                all.dy = dy;
                all.dq = dq;
                all.dk = dk;
                all.dv = dv;
                if (!has_prefix(unit.main)) return;
                Call & prefix = call(Call::prefix_backward, n.spec);
                prefix.dk = dk;
                prefix.dv = dv;
                return;
            }
            case Op::gated:
            case Op::activation: emit_activation_backward(n); return;
            case Op::pool: {
                const SlotId dy = gradient(n.out[0]), dx = gradient(n.in[0]);
                call(Call::clear).y = dx;
                Call & all = call(Call::pick_backward);
                all.dy = dy;
                all.dx = dx;
                return;
            }
            case Op::embed: {
                const SlotId dy = gradient(n.out[0]);
                call(Call::embed_backward, n.spec).dy = dy;
                return;
            }
            case Op::head: return;
        }
    }

    // Before the first call that writes only a part of a gradient: the rest is 0.
    void begin_gradient(Value v) {
        const Value store = storage(v);
        if (has_gradient_[at(stream_of(store))]) {
            if (info(v).cols == info(store).cols)
                fail(LORICA_ERROR_INTERNAL, "a gradient of a block is written twice by calls that cannot add");
            return;
        }
        has_gradient_[at(stream_of(store))] = true;
        if (info(v).cols == info(store).cols) return;
        int64_t written = 0;
        for (size_t i = 0; i < p_.values.size(); ++i) {
            if (p_.values[i].part_of == store && written_[i]) written += p_.values[i].cols;
        }
        if (written < info(store).cols) call(Call::clear).y = gradient(store);
    }

    // The gradient of a hidden value, as something other than a product reads it.
    SlotId twin() { return outer(Slot::twin, Format::act, info(p_.output).cols); }

    void emit_linear_backward(const Unit & unit, const std::vector<bool> & writes_twin) {
        const Node & n = node(unit.main);
        std::vector<LayerCall> layers;
        bool any_product = false;
        for (int i = 0; i < n.n_out; ++i) {
            const Value y = n.out[at(i)];
            if (!is_written(y)) continue;
            LayerCall layer{static_cast<int16_t>(n.spec + i)};
            layer.u = u(layer.linear);
            any_product = any_product || reads_input(layer.linear);
            layer.y = gradient(y);
            if (has_tail(layer.linear)) {
                layer.y = emit_tail_backward(n, i, layer.y);
            } else if (is_outer(y) && twin_is_current_) {
                layer.y = twin();
            }
            layers.push_back(layer);
        }
        if (unit.norm >= 0) {
            const Node & norm = node(unit.norm);
            const bool passes = runs_[at(unit.norm)];
            restore(norm.in[0]);
            if (passes) begin_sum(norm.in[0]);
            const SlotId x = slot(norm.in[0]), stats = made_statistics(unit.norm), normed = slot(n.in[0]);
            const SlotId d_normed = gradient(n.in[0]), dx = passes ? gradient(norm.in[0]) : no_slot;
            const SlotId act = passes ? written_twin(norm.in[0], unit.norm, writes_twin) : no_slot;
            Call & all = call(Call::norm_linear_backward, norm.spec);
            all.x = x;
            all.statistics = stats;
            all.normed = normed;
            all.d_normed = d_normed;
            all.dx = dx;
            all.twin = act;
            all.layers = std::move(layers);
        } else if (unit.gated >= 0) {
            const Node & g = node(unit.gated);
            const bool passes = runs_[at(unit.gated)];
            restore(g.in[0]);
            restore(g.in[1]);
            const SlotId h = slot(n.in[0]);
            if (passes) take_place(g, h);
            const SlotId gate = slot(g.in[0]), up = slot(g.in[1]);
            const SlotId dh = passes ? gradient(n.in[0]) : no_slot;
            const SlotId dgate = passes ? gradient(g.in[0]) : no_slot, dup = passes ? gradient(g.in[1]) : no_slot;
            Call & all = call(Call::gated_linear_backward);
            all.act = static_cast<Act>(g.spec);
            all.gate = gate;
            all.up = up;
            all.h = h;
            all.dh = dh;
            all.dgate = dgate;
            all.dup = dup;
            all.layers = std::move(layers);
        } else {
            const bool passes = needs(n.in[0]);
            if (any_product) restore(n.in[0]);
            const SlotId x = slot(n.in[0]), dx = passes ? gradient(n.in[0]) : no_slot;
            bool accumulate = false;
            if (passes) {
                auto has = has_gradient_.begin() + stream_of(n.in[0]);
                accumulate = *has;
                *has = true;
                if (is_outer(n.in[0])) twin_is_current_ = false;
            }
            Call & all = call(Call::linear_backward);
            all.x = x;
            all.dx = dx;
            all.accumulate = accumulate;
            all.layers = std::move(layers);
        }
    }

    void emit_scale_backward(const Node & n) {
        const Value x = n.in[0];
        if (n.spec < 0) return emit_copied_gradient(n.out[0], x);
        restore(x);
        const SlotId x_slot = slot(x), dy = gradient(n.out[0]);
        const bool passes = needs(x), sums = passes && has_gradient_[at(stream_of(x))];
        if (passes && !sums) begin_gradient(x);
        const SlotId dx = passes && !sums ? gradient(x) : temporary(Format::act, info(x).cols);
        Call & scale = call(Call::multiply_backward);
        scale.dy = dy;
        scale.x = x_slot;
        scale.dx = dx;
        scale.layers.push_back({n.spec});
        if (is_outer(x) && passes) twin_is_current_ = false;
        if (!sums) return;
        const SlotId sum = gradient(x);
        Call & add = call(Call::add);
        add.x = dx;
        add.y = sum;
    }

    // Of a value that was added as it is.
    void emit_copied_gradient(Value y, Value x) {
        const bool sums = has_gradient_[at(stream_of(x))];
        if (!sums) begin_gradient(x);
        const SlotId dy = gradient(y), dx = gradient(x);
        Call & copy = call(sums ? Call::add : Call::multiply);
        copy.x = dy;
        copy.y = dx;
        if (is_outer(x)) twin_is_current_ = false;
    }

    // Where the gradient of what DoRA scales goes: over that of the output, unless that is a residual's as well.
    SlotId emit_tail_backward(const Node & n, int output, SlotId dy) {
        const Value y = n.out[at(output)];
        const auto linear = static_cast<int16_t>(n.spec + output);
        restore(y);
        if (n.residual) restore(n.residual);
        const SlotId y_slot = slot(y), residual = n.residual ? slot(n.residual) : no_slot;
        const SlotId dx = n.residual || is_outer(y) ? temporary(Format::act, info(y).cols) : dy;
        Call & tail = call(Call::scale_backward);
        tail.dy = dy;
        tail.y = y_slot;
        tail.residual = residual;
        tail.dx = dx;
        tail.layers.push_back({linear, no_slot, no_slot, no_slot, p_.linears[at(linear)].bias});
        return dx;
    }

    // Sums begin with 0.
    void begin_sum(Value v) {
        auto has = has_gradient_.begin() + stream_of(v);
        if (!*has) call(Call::clear).y = gradient(v);
        *has = true;
    }

    SlotId written_twin(Value x, int norm, const std::vector<bool> & writes_twin) {
        if (!is_outer(x)) return no_slot;
        twin_is_current_ = writes_twin[at(norm)];
        return twin_is_current_ ? twin() : no_slot;
    }

    void emit_norm_backward(int i, const std::vector<bool> & writes_twin) {
        const Node & n = node(i);
        const Value x = n.in[0];
        restore(x);
        if (trains_norm(i)) {
            const SlotId x_slot = slot(x), dy = gradient(n.out[0]);
            Call & own = call(Call::norm_gradient, n.spec);
            own.x = x_slot;
            own.dy = dy;
        }
        if (!needs(x)) return;
        const bool is_sum = info(x).format == Format::hidden;
        bool accumulate = is_sum;
        if (is_sum) {
            begin_sum(x);
        } else if (info(x).cols == info(storage(x)).cols) {
            accumulate = has_gradient_[at(stream_of(x))];
            has_gradient_[at(stream_of(x))] = true;
        } else {
            begin_gradient(x);
        }
        const SlotId x_slot = slot(x), stats = made_statistics(i), dy = gradient(n.out[0]), dx = gradient(x);
        const SlotId act = written_twin(x, i, writes_twin);
        Call & all = call(Call::norm_backward, n.spec);
        all.x = x_slot;
        all.statistics = stats;
        all.dy = dy;
        all.dx = dx;
        all.twin = act;
        all.accumulate = accumulate;
    }

    // The gradients of an activation's inputs take their places, unless those are still read: by DoRA, whose gradient
    // wants the output of its layer. A gated activation's then both go elsewhere. spare: memory that is free by then.
    void take_place(const Node & n, SlotId spare) {
        gradient_slots_.resize(p_.values.size(), no_slot);
        bool keep = false;
        for (int i = 0; i < n.n_in; ++i) {
            const Value in = n.in[at(i)], store = storage(in);
            const int m = maker(store);
            const bool linear = m >= 0 && node(m).op == Op::linear;
            keep = keep || store == p_.input || readers_[at(in.id)].size() != 1 || !linear ||
                   (linear && has_tail(node(m).spec + info(store).output));
            for (size_t j = 0; j < p_.values.size(); ++j) {  // other parts of the same value
                if (p_.values[j].part_of != store) continue;
                const bool ours =
                    std::any_of(n.in.begin(), n.in.begin() + n.n_in, [&](Value v) { return at(v.id) == j; });
                keep = keep || !ours;
            }
        }
        if (!keep) {
            for (int i = 0; i < n.n_in; ++i) {
                const Value store = storage(n.in[at(i)]);
                gradient_slots_[at(store.id)] = slot(store);
            }
        } else if (n.n_in == 2 && spare != no_slot && storage(n.in[0]) != storage(n.in[1]) && !info(n.in[1]).part_of) {
            gradient_slots_[at(storage(n.in[1]).id)] = spare;
        }
        for (int i = 0; i < n.n_in; ++i) begin_gradient(n.in[at(i)]);
    }

    void emit_activation_backward(const Node & n) {
        for (int i = 0; i < n.n_in; ++i) restore(n.in[at(i)]);
        take_place(n, no_slot);
        const SlotId dy = gradient(n.out[0]), a = slot(n.in[0]), da = gradient(n.in[0]);
        const SlotId b = n.op == Op::gated ? slot(n.in[1]) : no_slot;
        const SlotId db = n.op == Op::gated ? gradient(n.in[1]) : no_slot;
        Call & all = call(n.op == Op::gated ? Call::gated_backward : Call::activation_backward);
        all.act = static_cast<Act>(n.spec);
        all.dy = dy;
        if (n.op == Op::gated) {
            all.gate = a;
            all.up = b;
            all.dgate = da;
            all.dup = db;
        } else {
            all.x = a;
            all.dx = da;
        }
    }

    const Program & p_;
    const TrainedSites & sites_;
    Wanted w_;
    BlockPlan plan_;
    std::vector<Call> calls_;

    std::vector<std::vector<int>> readers_;  // nodes, by value
    std::vector<int> stream_, place_;        // by value
    std::vector<bool> needs_, written_;      // gradients, by value
    std::vector<bool> runs_;                 // backward, by node
    std::vector<bool> read_, kept_;          // by value; kept_ by storage
    std::vector<bool> statistics_read_, u_read_;
    std::vector<bool> restored_, undone_;  // by value
    std::vector<bool> remade_;             // of a recomputed layer, by node
    std::vector<bool> has_gradient_;       // something was written, by stream
    std::vector<SlotId> value_slots_, gradient_slots_, statistics_slots_, u_slots_;
    bool twin_is_current_ = false;
};

// Norms whose backward pass leaves the stream's gradient in act as well: the last to add to it before a product reads
// it. With everything trained, so that it does not depend on what is.
std::vector<bool> Derivation::twin_writers() const {
    TrainedSites all;
    all.linears.assign(p_.linears.size(), TrainedSites::lora);
    Wanted wanted = w_;
    wanted.dx = true;
    const Derivation whole(p_, all, wanted);
    std::vector<bool> writes(p_.nodes.size());
    int last = -1;
    for (const Unit & unit : whole.backward_order()) {
        const bool is_product = node(unit.main).op == Op::linear;
        for (const Value v : whole.gradients_read(unit)) {
            if (is_product && is_outer(v) && last >= 0) writes[at(last)] = true;
        }
        const int adder = unit.norm >= 0 ? unit.norm : node(unit.main).op == Op::norm ? unit.main : -1;
        for (const Value v : whole.gradients_written(unit)) {
            if (is_outer(v)) last = adder;
        }
    }
    if (w_.twin_out && last >= 0) writes[at(last)] = true;
    return writes;
}

}  // namespace

BlockPlan derive(const Program & program, const TrainedSites & sites, const Wanted & wanted) {
    const bool scales = std::any_of(sites.linears.begin(), sites.linears.end(), [](uint8_t what) {
        return (what & (TrainedSites::scale_in | TrainedSites::scale_out)) != 0;
    });
    if (sites.bottlenecks) {
        const Program longer = with_bottlenecks(program, sites.bottlenecks);
        TrainedSites all = sites;
        all.linears.resize(longer.linears.size());
        constexpr uint8_t whole = TrainedSites::weight | TrainedSites::bias;
        for (size_t i = program.linears.size(); i < longer.linears.size(); ++i) all.linears[i] = whole;
        return Derivation(longer, all, wanted).plan();
    }
    if (!scales) return Derivation(program, sites, wanted).plan();
    const Program scaled = with_scales(program, sites);
    return Derivation(scaled, sites, wanted).plan();
}

int n_branches(const Program & program) {
    return static_cast<int>(std::count_if(program.nodes.begin(), program.nodes.end(), is_branch));
}

bool reads_twin(const Program & program) {
    const int16_t maker = program[program.output].maker;
    return maker >= 0 && program.nodes[at(maker)].op == Op::linear;
}

}  // namespace lorica
