// The state of a session on disk: a fixed header, the adapter's parameters, the arrays of the optimizer, each in the
// adapter's order, a CRC-32C over all of it. Little-endian.
#include <cstring>
#include <fstream>

#include "common/atomic_file.h"
#include "common/crc32c.h"
#include "common/error.h"
#include "train/session.h"

namespace lorica {

namespace {

struct Header {
    char magic[8] = {'L', 'O', 'R', 'I', 'C', 'A', 'T', 'S'};
    uint32_t version = 2;
    uint32_t element_size = 0;  // of a parameter and of a moment
    int64_t n_params = 0;
    int64_t step_count = 0;
    int64_t micro_batch_count = 0;
    uint64_t seed = 0;
    uint32_t layout = 0;  // checksum over names and shapes of the adapter's tensors
    uint32_t optimizer = 0;
};
static_assert(sizeof(Header) == 56);

const char * name(Optimizer optimizer) { return optimizer == Optimizer::adamw ? "AdamW" : "AdamW with 8-bit state"; }

uint32_t layout_checksum(const Adapter & adapter) {
    uint32_t crc = 0;
    for (int32_t i = 0; i < adapter.n_tensors(); ++i) {
        const Adapter::Tensor & tensor = adapter.tensor(i);
        crc = crc32c(crc, tensor.name.data(), tensor.name.size());
        crc = crc32c(crc, &tensor.rows, sizeof tensor.rows);
        crc = crc32c(crc, &tensor.cols, sizeof tensor.cols);
    }
    return crc;
}

}  // namespace

void Session::save_state(const std::string & path) const {
    check_optimizer();
    Header header;
    header.element_size = static_cast<uint32_t>(dtype_size(backend_->formats().param));
    header.n_params = adapter_->n_params();
    header.step_count = step_count_;
    header.micro_batch_count = stepped_micro_batch_count_;
    header.seed = config_.seed;
    header.layout = layout_checksum(*adapter_);
    header.optimizer = static_cast<uint32_t>(config_.optimizer);

    AtomicFile file(path);
    file.write(&header, sizeof header);
    uint32_t crc = crc32c(0, &header, sizeof header);
    std::vector<std::byte> array;
    for (const auto & [source, n_bytes] : state_arrays()) {
        array.resize(n_bytes);
        backend_->copy_to_host(array.data(), source, n_bytes);
        crc = crc32c(crc, array.data(), array.size());
        file.write(array.data(), array.size());
    }
    file.write(&crc, sizeof crc);
    file.commit();
}

void Session::load_state(const std::string & path) {
    check_optimizer();
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(LORICA_ERROR_IO, "cannot open training state ", path, ": ", std::strerror(errno));
    Header header;
    if (!file.read(reinterpret_cast<char *>(&header), sizeof header) ||
        std::memcmp(header.magic, Header{}.magic, 8) != 0) {
        fail(LORICA_ERROR_FORMAT, path, " is no training state of lorica");
    }
    if (header.version != Header{}.version)
        fail(LORICA_ERROR_UNSUPPORTED, path, ": training state version ", header.version, " is not known");
    if (header.n_params != adapter_->n_params() || header.layout != layout_checksum(*adapter_) ||
        header.element_size != dtype_size(backend_->formats().param)) {
        fail(LORICA_ERROR_MISMATCH, path, " belongs to an adapter of other shapes or another precision");
    }
    if (header.optimizer != static_cast<uint32_t>(config_.optimizer)) {
        const bool known = header.optimizer <= static_cast<uint32_t>(Optimizer::adamw_8bit);
        fail(LORICA_ERROR_MISMATCH, path, " is the state of ",
             known ? name(static_cast<Optimizer>(header.optimizer)) : "another optimizer",
             ", this session trains with ", name(config_.optimizer));
    }
    uint32_t crc = crc32c(0, &header, sizeof header), stored = 0;
    const auto targets = state_arrays();
    std::vector<std::vector<std::byte>> arrays;
    for (const auto & [target, n_bytes] : targets) {
        std::vector<std::byte> & array = arrays.emplace_back(n_bytes);
        if (!file.read(reinterpret_cast<char *>(array.data()), static_cast<std::streamsize>(n_bytes))) {
            fail(LORICA_ERROR_FORMAT, path, " is cut short");
        }
        crc = crc32c(crc, array.data(), n_bytes);
    }
    if (!file.read(reinterpret_cast<char *>(&stored), sizeof stored)) fail(LORICA_ERROR_FORMAT, path, " is cut short");
    if (stored != crc) fail(LORICA_ERROR_FORMAT, path, " is damaged: its checksum does not match");
    if (header.step_count < 0 || header.micro_batch_count < 0)
        fail(LORICA_ERROR_FORMAT, path, " holds a negative step count");

    for (size_t i = 0; i < arrays.size(); ++i)
        backend_->copy_to_device(targets[i].first, arrays[i].data(), arrays[i].size());
    adapter_->params_changed();
    has_forward_ = false;
    step_count_ = header.step_count;
    micro_batch_count_ = stepped_micro_batch_count_ = header.micro_batch_count;
    config_.seed = header.seed;
    zero_gradients();
}

}  // namespace lorica
