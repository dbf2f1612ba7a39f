// lorica-bench: how fast the engine is on this machine and how near to what the machine can do. Needs no JVM.
//
//   lorica-bench steps --shape s135                 whole training steps next to oneDNN's bf16 matmul
//   lorica-bench steps --shape tiny1b --targets q_proj,v_proj --recomputation on --tokens 512 --no-ceiling
//   lorica-bench decode --model llama-q4_0.gguf
//
// The table on stderr is for people, the JSON on stdout for programs. NOTES.md says how things are measured.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "commands.h"
#include "machine.h"

namespace {

constexpr const char * usage =
    R"(usage: lorica-bench COMMAND [--option value]...

commands
  steps     whole training steps: tokens and operations per second, share of oneDNN's matmul, memory against the plan
  ceiling   oneDNN's matmul alone on the model's products, bf16 and f32
  gemm      the engine's matrix products alone, by layer and weight type, against oneDNN
  decode    prompt processing and decoding, against the memory's read bandwidth
  merge     an adapter folded into the model: seconds, peak memory
  start     from nothing to the first training step, with 10,000 examples
  scaling   cost per token by sequence length and by number of examples
  trace     writes an adapter, its training state, losses and tokens, for scripts/compare_builds.py

options of all commands (default)
  --shape NAME        mini, s135, tiny1b, llama7b, llama8b: random weights (s135)
  --architecture A    of random weights: llama, qwen3, gemma3, gpt2, ... (llama)
  --type TYPE         of the weights: q4_0, q8_0, q4_k, bf16, ... (q4_0)
  --model FILE        a GGUF model instead
  --cache FOLDER      where models of random weights are kept (~/.cache/lorica/bench)
  --device D          cpu, cuda, cuda:N (cpu)
  --threads N         0: all cores (0)
  --precision P       auto, bf16, f32 (auto)
  --repetitions N     of what is measured (5)

steps, scaling
  --targets LIST      all-linear, or q_proj,v_proj,... (all-linear)
  --rank N            (16)
  --tokens N          of one step (2048; scaling 4096)
  --recomputation C   auto, on, off (auto)
steps
  --sequence-length N (512)
  --no-ceiling        without oneDNN beside it
  --on-request        one step for each line read from stdin, its seconds as a line of JSON on stdout
ceiling, gemm
  --tokens N          rows of the products (2048)
gemm
  --types LIST        of the weights, instead of --type (q4_0,q8_0,q4_k,bf16)
decode
  --prompt N          tokens of the prompt (512)
  --generate N        tokens decoded after it (128)
  --sequences N       also N texts at once, with the prompt shared (0)
  --adapters N        also with 1 to N adapters at once, of --targets and --rank (0)
merge
  --merge-type TYPE   of the new file (f16)
  --output FILE       keep the new file under this name (beside the model, removed at the end)
start
  --examples N        (10000)
  --cold              drop the model from the page cache first
trace
  --output FOLDER     receives the files
  --targets, --rank, --recomputation, and --dora --rslora --8bit --dropout-percent N --neftune N --steps N
scaling
  --lengths LIST      sequence lengths (128,256,512,1024,2048,4096)
  --examples LIST     numbers of examples (1000,10000,100000)
)";

}  // namespace

int main(int argc, char ** argv) {
    using namespace lorica::bench;
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const std::string command = arguments.empty() ? "" : arguments[0];
    if (command.empty() || command == "--help" || command == "help") {
        std::fputs(usage, command.empty() ? stderr : stdout);
        return command.empty() ? 2 : 0;
    }
    try {
        const Options options({arguments.begin() + 1, arguments.end()});
        Json machine = machine_facts();
        Json result;
        if (command == "steps") {
            result = run_steps(options);
        } else if (command == "ceiling") {
            result = run_ceiling(options);
        } else if (command == "gemm") {
            result = run_gemm(options);
        } else if (command == "decode") {
            result = run_decode(options);
        } else if (command == "merge") {
            result = run_merge(options);
        } else if (command == "start") {
            result = run_start(options);
        } else if (command == "scaling") {
            result = run_scaling(options);
        } else if (command == "trace") {
            result = run_trace(options);
        } else {
            std::fprintf(stderr, "lorica-bench: there is no command '%s'; lorica-bench --help lists them\n",
                         command.c_str());
            return 2;
        }
        std::puts(Json().set("command", command).set("machine", machine).set("result", result).dump().c_str());
        return 0;
    } catch (const std::exception & error) {
        std::fprintf(stderr, "lorica-bench %s: %s\n", command.c_str(), error.what());
        return 1;
    }
}
