/*
 * lorica.h: fine-tuning and running quantized language models. This is the whole public interface of liblorica.
 *
 * A LoRA trained on a 4-bit file, in one screen (error checks left out; every call returns a status):
 *
 *     lorica_model * model;
 *     lorica_model_load("llama-q4_0.gguf", NULL, &model);     // NULL: the default parameters
 *
 *     lorica_adapter * adapter;
 *     lorica_adapter_params ap = {sizeof ap};
 *     lorica_adapter_default_params(&ap);
 *     ap.rank = 16; ap.alpha = 32; ap.target_modules = "q_proj,v_proj";
 *     lorica_adapter_create(model, &ap, &adapter);
 *
 *     lorica_session * session;
 *     lorica_session_params sp = {sizeof sp};
 *     lorica_session_default_params(&sp);
 *     sp.max_tokens = 2048;                                   // the largest micro-batch that this session will see
 *     lorica_session_create(model, adapter, &sp, &session);
 *
 *     for each accumulation group:
 *         for each micro-batch:
 *             lorica_session_forward_backward(session, &batch, &result);      // adds sums into the gradients
 *             trained += result.n_trained;
 *         lorica_session_optimizer_step(session, &step, &grad_norm);          // step.grad_scale = 1 / trained
 *
 *     lorica_adapter_save(adapter, "adapter.gguf");           // llama.cpp loads it with --lora
 *
 * Conventions
 *   Shapes are row-major, slowest dimension first: x[T, n_embd] has the n_embd values of token 0 first.
 *   T is the number of tokens in a packed micro-batch, V the vocabulary, r the rank.
 *   Strings are UTF-8 and NUL-terminated unless a length stands beside them.
 *   A pointer in a parameter is borrowed for the call only. A handle returned through `**out` is the caller's; it is
 *   released with the *_free function of its type, which accepts NULL, in any order: what an object was made from lives
 *   on inside of it.
 *   Structs begin with struct_size, which the caller sets to sizeof before the call, of those that it gives and of
 *   those that it receives. So they can grow at their end: a library reads and writes no more than the caller knows,
 *   takes defaults for the rest, and refuses a larger struct unless what it does not know is zero.
 *
 * Words
 *   A *training session* (lorica_session) is what trains an adapter; a *KV cache* (lorica_kv_cache) is what a text is
 *   run through; *recomputation* is computing activations again in the backward pass instead of keeping them; a
 *   *checkpoint* is a saved state.
 *
 * Threads
 *   Distinct handles may be used from distinct threads at once. One handle is used by one thread at a time, except
 *   lorica_model and lorica_tokenizer, which are immutable and may be shared, and the functions that cancel.
 *
 * Errors
 *   Every function that can fail returns a lorica_status, and writes to its outputs only when it returns LORICA_OK.
 *   lorica_last_error() says what was wrong, where, and what to do about it. NULL for a handle or another required
 *   pointer is INVALID_ARGUMENT, and so is an index out of range; the comments name what else there is. Nothing is
 *   printed, and nothing exits, throws or aborts across this boundary.
 */
#ifndef LORICA_H
#define LORICA_H

#include <lorica/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef LORICA_API
#if defined(_WIN32)
#define LORICA_API __declspec(dllexport)
#else
#define LORICA_API __attribute__((visibility("default")))
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------------------------
 * Status, version, log
 * ------------------------------------------------------------------------------------------------------------- */

/* Version of the library as "major.minor.patch". Static storage. */
LORICA_API const char * lorica_version(void);

/* The message of the last call that failed on this thread, one line without a line break; "" if none has. Valid until
 * the next failing call on this thread. */
LORICA_API const char * lorica_last_error(void);

/* Replaces the log callback of the process; NULL, the default: nothing is logged. */
LORICA_API void lorica_log_set(lorica_log_callback callback, void * user_data);

/* What computes is one pool of threads for the whole process. It is as large as the number of processors that affinity
 * and control groups (version 1 and 2) leave this process, or as n_threads somewhere asks for; its threads are made
 * when they are first wanted, and where the system gives none the others do the work. Calls that run at the same time
 * share them: of k calls each computes on a k-th of the processors, its own thread included. Results do not depend on
 * any of it. n_threads lowers the number for whoever asks for "all" (a JVM's availableProcessors, say); 0: as it was.
 * Has no effect on models that are loaded. */
LORICA_API void lorica_set_thread_limit(int32_t n_threads);

/* Bytes that something else in this process will yet take, such as the heap of a JVM on its way to its largest size:
 * they are not available to the plans of the devices that compute in the machine's memory. 0 at first. */
LORICA_API void lorica_set_reserved_memory(int64_t n_bytes);

/* ---------------------------------------------------------------------------------------------------------------
 * GGUF files: what is inside, without loading it as a model
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_gguf lorica_gguf;

typedef struct lorica_gguf_tensor {
    size_t struct_size; /* sizeof, set by the caller */
    const char * name;  /* owned by the handle */
    const char * type;  /* ggml's name: "F32", "Q4_0", "Q4_K", … static storage */
    int32_t n_dims;     /* 1 to 4 */
    int64_t ne[4];      /* ggml order: ne[0] is the contiguous dimension; unused dimensions are 1 */
    uint64_t offset;    /* bytes from the start of the file that it lies in */
    uint64_t n_bytes;
} lorica_gguf_tensor;

/* Opens and validates a GGUF v2 or v3 file (any architecture, adapters and vocabulary-only files too). Of a model in
 * several files (NAME-00001-of-00003.gguf) the first is given, and the others are found beside it. Errors: IO, FORMAT,
 * INVALID_ARGUMENT (one of several files, but not the first). */
LORICA_API lorica_status lorica_gguf_open(const char * path, lorica_gguf ** out);
LORICA_API void lorica_gguf_free(lorica_gguf * gguf);

/* Size in bytes, of all files of a model in several. */
LORICA_API uint64_t lorica_gguf_n_bytes(const lorica_gguf * gguf);
LORICA_API int64_t lorica_gguf_n_kv(const lorica_gguf * gguf);
LORICA_API int64_t lorica_gguf_n_tensors(const lorica_gguf * gguf);

/* Key of metadata entry i, NULL when i is out of range. Owned by the handle. */
LORICA_API const char * lorica_gguf_key(const lorica_gguf * gguf, int64_t i);

/* Value of metadata entry i as JSON text: numbers, true/false, strings, and arrays of these, of which at most the first
 * `max_array` elements are written (-1: all). NULL when i is out of range. Owned by the
 * handle and valid until the next call of this function on it. */
LORICA_API const char * lorica_gguf_value_json(lorica_gguf * gguf, int64_t i, int64_t max_array);

/* Number of elements of metadata entry i when it is an array, -1 when it is not or i is out of range. */
LORICA_API int64_t lorica_gguf_array_length(const lorica_gguf * gguf, int64_t i);

LORICA_API lorica_status lorica_gguf_tensor_info(const lorica_gguf * gguf, int64_t i, lorica_gguf_tensor * out);

/* ---------------------------------------------------------------------------------------------------------------
 * Tokenizer
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_tokenizer lorica_tokenizer;

typedef struct lorica_tokenizer_info {
    size_t struct_size;         /* sizeof, set by the caller */
    const char * model;         /* "llama" (SentencePiece-style), "gpt2" (byte-level BPE), "bert" (WordPiece) */
    const char * pre;           /* pre-tokenizer of byte-level BPE, "" where there is none */
    const char * chat_template; /* Jinja source as stored in the file, NULL when the file has none */
    int32_t n_vocab;
    int32_t bos, eos, eot, unk, pad; /* token ids; -1 where the vocabulary has none */
    bool add_bos, add_eos;           /* what add_special does in lorica_tokenizer_encode */
} lorica_tokenizer_info;

/* Loads the vocabulary of a GGUF file, which may be a vocabulary-only one. Errors: IO, FORMAT, UNSUPPORTED. */
LORICA_API lorica_status lorica_tokenizer_load(const char * path, lorica_tokenizer ** out);
LORICA_API void lorica_tokenizer_free(lorica_tokenizer * tokenizer);

/* Strings in *out are owned by the tokenizer. */
LORICA_API lorica_status lorica_tokenizer_get_info(const lorica_tokenizer * tokenizer, lorica_tokenizer_info * out);

/* Splits `text` (n_bytes bytes, need not be NUL-terminated, any bytes: what is not UTF-8 is treated as U+FFFD) into
 * token ids, equal to llama.cpp's. add_special: put BOS/EOS where the vocabulary asks for them. parse_special: control
 * tokens written out in the text ("<|im_end|>") become their ids instead of plain text; false for text from strangers.
 * Writes at most `capacity` ids and always the full count to *n_tokens: capacity 0 with ids NULL asks for the count.
 * A count above the capacity is not an error; the first `capacity` ids are written. */
LORICA_API lorica_status lorica_tokenizer_encode(const lorica_tokenizer * tokenizer, const char * text, int64_t n_bytes,
                                                 bool add_special, bool parse_special, int32_t * ids, int64_t capacity,
                                                 int64_t * n_tokens);

/* Encodes n_texts texts on n_threads threads (0: all cores). Text i is bytes [offsets[i], offsets[i + 1]) of `texts`;
 * offsets has n_texts + 1 entries, ascending. parse_special[i] applies to text i (NULL: false for all); add_special to
 * none. The ids of all texts stand one after another in `ids` (at most `capacity`), those of text i at
 * [id_offsets[i], id_offsets[i + 1]); id_offsets has n_texts + 1 entries and is always written in full, so its last
 * entry is the capacity needed. */
LORICA_API lorica_status lorica_tokenizer_encode_batch(const lorica_tokenizer * tokenizer, const char * texts,
                                                       const int64_t * offsets, const bool * parse_special,
                                                       int64_t n_texts, int32_t n_threads, int32_t * ids,
                                                       int64_t capacity, int64_t * id_offsets);

/* The bytes that ids stand for, at most `capacity` of them, the full count in *n_bytes. Control tokens are left out
 * unless `special`. SentencePiece's leading space is removed as llama.cpp does. Errors: INVALID_ARGUMENT for an id out
 * of range. */
LORICA_API lorica_status lorica_tokenizer_decode(const lorica_tokenizer * tokenizer, const int32_t * ids, int64_t n_ids,
                                                 bool special, char * text, int64_t capacity, int64_t * n_bytes);

/* The text of one token as the vocabulary spells it, owned by the tokenizer; NULL when id is out of range. */
LORICA_API const char * lorica_tokenizer_token_text(const lorica_tokenizer * tokenizer, int32_t id);

/* True for control tokens (never produced from plain text, hidden by decode) and for the tokens that end a turn. */
LORICA_API bool lorica_tokenizer_is_control(const lorica_tokenizer * tokenizer, int32_t id);
LORICA_API bool lorica_tokenizer_is_end_of_generation(const lorica_tokenizer * tokenizer, int32_t id);

/* Turns a stream of ids into a stream of text that never ends inside a UTF-8 character. */
typedef struct lorica_detokenizer lorica_detokenizer;
LORICA_API lorica_status lorica_detokenizer_create(const lorica_tokenizer * tokenizer, bool special,
                                                   lorica_detokenizer ** out);
LORICA_API void lorica_detokenizer_free(lorica_detokenizer * detokenizer);

/* Takes one id and gives the bytes that are complete now: valid UTF-8, possibly none. *text is owned by the detokenizer
 * and valid until its next call. */
LORICA_API lorica_status lorica_detokenizer_push(lorica_detokenizer * detokenizer, int32_t id, const char ** text,
                                                 int64_t * n_bytes);

/* The end of the stream: bytes still held back, each byte that is no character given as U+FFFD; resets the stream. */
LORICA_API lorica_status lorica_detokenizer_finish(lorica_detokenizer * detokenizer, const char ** text,
                                                   int64_t * n_bytes);

/* ---------------------------------------------------------------------------------------------------------------
 * Model: the frozen base
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_model lorica_model;

typedef enum lorica_precision {
    LORICA_PRECISION_AUTO = 0, /* bf16 on cpu and cuda, f32 on reference */
    LORICA_PRECISION_BF16 = 1, /* matrix operands in bf16, sums in f32, residual stream in f32 */
    LORICA_PRECISION_F32 = 2,  /* everything in f32 */
    LORICA_PRECISION_F64 = 3   /* everything in f64; only the reference device */
} lorica_precision;

typedef struct lorica_model_params {
    size_t struct_size;  /* sizeof, set by the caller */
    const char * device; /* "auto" (the first GPU that works, else the CPU), "cpu", "reference" (plain loops, to compare
                            with), "cuda" or "cuda:N" */
    lorica_precision precision;
    int32_t n_threads; /* 0: all cores that this process may run on */
    bool use_mmap;     /* map the file, so that processes share its pages; false: read it into memory, after which it
                          does not matter what happens to it */
    const char * added_tokens; /* one a line, behind those of the vocabulary, as lorica_add_tokens puts them there; NULL
                                  or "": none. The embedding and the head are in memory then. An adapter remembers
                                  them (lorica.added_tokens in its file), and fits a model with the same alone */
} lorica_model_params;

LORICA_API lorica_status lorica_model_default_params(lorica_model_params * params);

typedef struct lorica_model_info {
    size_t struct_size;         /* sizeof, set by the caller */
    const char * architecture;  /* general.architecture: "llama", "qwen3" */
    const char * name;          /* general.name, "" when absent */
    const char * file_type;     /* the tensor type that most weights have: "Q4_0" */
    const char * device;        /* the device chosen: "cpu", "cuda:0" */
    const char * device_detail; /* which, and with which kernels: "AMX-BF16, bf16, 2 threads" */
    const char * device_reason; /* why "auto" took it: "no GPU: no NVIDIA driver (libcuda.so.1 not found)"; "" where it
                                   was named */
    const char *
        fingerprint; /* 16 hex digits over architecture, shapes and sampled weights; names the base in adapters */
    int32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_ctx_train;
    bool tied_output;     /* the output head is the embedding matrix */
    int64_t n_params;     /* elements of all weight tensors */
    int64_t weight_bytes; /* bytes of all weight tensors in the file */
    bool is_encoder;      /* sees whole texts and predicts no tokens: for classifiers and embeddings */
    int32_t n_outputs;    /* of the classifier that the file holds; 0: it holds none */
    int32_t pooling_type; /* llama.cpp's: 0 none, 1 mean, 2 cls, 3 last, 4 rank; -1: the file does not say */
    const char * problem; /* transformers' problem_type of the classifier, "" where the file does not say */
} lorica_model_info;

/* What a device is and can do, without a model. */
typedef struct lorica_device_info {
    size_t struct_size;       /* sizeof, set by the caller */
    char name[32];            /* "cpu", "cuda:0" */
    char detail[160];         /* "AMX-BF16, bf16, 2 threads"; cut where it is longer, as all such texts are */
    char reason[512];         /* as lorica_model_info.device_reason */
    int64_t available_memory; /* bytes */
    double peak_flops;        /* per second, measured by the call as lorica_session_measure_speed does; 0: not known */
} lorica_device_info;

/* Looks for the device that lorica_model_load would take with these parameters (NULL: the defaults). Errors: as there,
 * so that the message says why a device is not there. */
LORICA_API lorica_status lorica_device_probe(const lorica_model_params * params, lorica_device_info * out);

/* What there is of CUDA on this machine, usable or not. */
typedef struct lorica_cuda_info {
    size_t struct_size;      /* sizeof, set by the caller */
    int32_t driver_version;  /* the newest CUDA that the driver runs, 13000 for 13.0; 0: no driver, or no library to ask
                                it with */
    int32_t runtime_version; /* the CUDA that liblorica-cuda.so was built with; 0: that library cannot be opened */
    int32_t n_devices;
    char problem[512]; /* why no GPU can be used; "" where one may be */
    char remedy[256];  /* what to do about that */
} lorica_cuda_info;

typedef struct lorica_cuda_device_info {
    size_t struct_size; /* sizeof, set by the caller */
    char name[128];
    char pci_bus_id[32];                  /* "00000000:65:00.0", as nvidia-smi and NVML name it */
    int32_t compute_major, compute_minor; /* compute capability; 8.0 is needed */
    int64_t total_memory, free_memory;    /* bytes; free is 0 where the device cannot be used */
    char problem[512];                    /* why it cannot be used; "" where a kernel ran on it */
    char remedy[256];
} lorica_cuda_device_info;

/* Not having CUDA is no error here. */
LORICA_API lorica_status lorica_cuda_probe(lorica_cuda_info * out);
/* Device "cuda:index". Errors: DEVICE when there is none of this number. */
LORICA_API lorica_status lorica_cuda_device_probe(int32_t index, lorica_cuda_device_info * out);
/* Where liblorica-cuda.so is, when it is not beside liblorica.so; NULL: there. The environment variable
 * LORICA_CUDA_LIBRARY goes before it. Has no effect on devices in use. */
LORICA_API lorica_status lorica_cuda_set_library(const char * path);

/* Opens a GGUF model, memory-mapped: weights stay in their blocks and are shared between processes. Every header,
 * shape, type, offset and metadata value is validated first. Of a model in several files the first is given, see
 * lorica_gguf_open. Errors: IO, FORMAT, INVALID_ARGUMENT (one of several files, but not the first), UNSUPPORTED
 * (architecture, tensor type; the tokenizer is not looked at), DEVICE, OUT_OF_MEMORY. */
LORICA_API lorica_status lorica_model_load(const char * path, const lorica_model_params * params, lorica_model ** out);
LORICA_API void lorica_model_free(lorica_model * model);

/* Its vocabulary, with the tokens that were added to it. The tokenizer may outlive the model. Errors: FORMAT,
 * UNSUPPORTED. */
LORICA_API lorica_status lorica_tokenizer_of_model(const lorica_model * model, lorica_tokenizer ** out);

/* LORICA_OK if the files of a mapped model are what they were when it was loaded: size, time of modification and a
 * sample. lorica_session_save_state asks it first. Of a model that was read into memory nothing is compared. Errors:
 * MISMATCH, what was computed meanwhile may be wrong; IO.
 *
 * Of a mapped file that is cut while it is in use, the missing pages read as zeros, and the call that read them fails
 * with IO, as do all later ones with this model. For that the library has a handler of SIGBUS, installed when the first
 * file is mapped, which looks after its own mappings only and hands every other SIGBUS to the handler that it found. It
 * unwinds nothing: the instruction goes on with the page of zeros. A JVM's handler keeps working, since it is called as
 * the system would call it, and with libjsig loaded the two change places; a handler that somebody installs later and
 * that does not hand on takes the guard away, and a cut file is the end of the process again. */
LORICA_API lorica_status lorica_model_check(const lorica_model * model);
LORICA_API lorica_status lorica_model_get_info(const lorica_model * model, lorica_model_info * out);

/* What output i of the file's classifier is called, owned by the model; NULL where the file does not say, or i is out
 * of range. */
LORICA_API const char * lorica_model_label(const lorica_model * model, int32_t i);

/* ---------------------------------------------------------------------------------------------------------------
 * Adapter: what is trained
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_adapter lorica_adapter;

typedef enum lorica_lora_init {
    LORICA_LORA_INIT_DEFAULT = 0,  /* A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0: PEFT's init_lora_weights=True */
    LORICA_LORA_INIT_GAUSSIAN = 1, /* A ~ N(0, 1/r^2) (standard deviation 1/r), B = 0: PEFT's "gaussian" */
    LORICA_LORA_INIT_PISSA = 2 /* PiSSA (Meng et al. 2024): with W = U S V^T, A = sqrt(S_r / scale) V_r^T and B = U_r
                                  sqrt(S_r / scale), PEFT's "pissa". W is not changed: what A and B began as is taken
                                  away by a second half of each pair, [A; A0] and [B, -B0], that is not trained. So the
                                  adapter has twice the rank and twice the alpha (with rsLoRA sqrt(2) of it) that were
                                  asked for, and is a LoRA for the model as it is; after training too. No dropout. */
} lorica_lora_init;

typedef enum lorica_method {
    LORICA_METHOD_LORA = 0,   /* with DoRA's magnitudes or without */
    LORICA_METHOD_IA3 = 1,    /* IA3 (Liu et al. 2022): y = l * (x W^T + bias) with a trained l[out, 1] for each target
                                 module, or, of those named in feedforward_modules too, y = (l * x) W^T + bias with
                                 l[1, in]; all begin as 1 */
    LORICA_METHOD_BITFIT = 2, /* BitFit (Ben Zaken et al. 2021): the biases of the linear layers, and the norms with
                                 them; they begin as the model's. A model without biases trains its norms alone. */
    LORICA_METHOD_FULL = 3,   /* the model's own tensors, in f32 whatever the file has: quantized ones are expanded. An
                                 embedding that is the head too is one tensor. Takes 4 bytes for each element, as many
                                 for its gradient, and 8 (AdamW) or 2 (with 8-bit state) for its moments. */
    LORICA_METHOD_PROMPT_TUNING = 4, /* prompt tuning (Lester et al. 2021): n_virtual_tokens trained embeddings [n,
                                       n_embd] in front of every text. They are in no batch, no cache's length and no
                                       limit; positions count them. It has no scale and is merged into no model. */
    LORICA_METHOD_P_TUNING = 5, /* P-tuning (Liu et al. 2021): the same, and the embeddings come out of a small network
                                  that is trained, with encoder_hidden_size, as PEFT's PromptEncoder with MLP */
    LORICA_METHOD_PREFIX_TUNING = 6, /* prefix tuning (Li & Liang 2021): trained keys and values of n_virtual_tokens in
                                       front of every text, of each layer its own, as PEFT's without projection: keys
                                       are not rotated any more, and positions count them. Otherwise as a prompt. */
    LORICA_METHOD_BOTTLENECK = 7 /* bottleneck adapters: up(act(down(x))) of linear layers with biases, [size, n_embd]
                                    and [n_embd, size], behind the branches of each layer. down begins as U(-1/sqrt(in),
                                    1/sqrt(in)), all else as 0: AdapterHub's "mam_adapter". Not of granite; merged into
                                    no model. */
} lorica_method;

/* Where a bottleneck adapter stands. f is what a branch of a layer, attention or feed-forward, adds to the stream x. */
typedef enum lorica_bottleneck_placement {
    LORICA_BOTTLENECK_HOULSBY = 0, /* Houlsby et al. 2019, AdapterHub's "double_seq_bn": x + f + up(act(down(f))), of
                                      both branches */
    LORICA_BOTTLENECK_PFEIFFER = 1 /* Pfeiffer et al. 2020, "seq_bn": s + up(act(down(s))) with s = x + f of the
                                      feed-forward; where a norm follows s, down reads what it gives */
} lorica_bottleneck_placement;

/* Biases that are trained beside a LoRA, as PEFT's LoraConfig has it. */
typedef enum lorica_trained_biases {
    LORICA_BIASES_NONE = 0,
    LORICA_BIASES_LORA_ONLY = 1, /* of the layers that have one */
    LORICA_BIASES_ALL = 2
} lorica_trained_biases;

typedef struct lorica_adapter_params {
    size_t struct_size; /* sizeof, set by the caller */
    int32_t rank;
    double alpha;
    double dropout;  /* probability that an element of x is zeroed before A, while training; [0, 1) */
    bool use_rslora; /* scale alpha / sqrt(rank) instead of alpha / rank */
    bool use_dora;   /* DoRA (Liu et al. 2024): y = m / |W + scale B A| (x W^T + scale u B^T), norms by row. m has one
                        trained element per row of W and begins as |W|; the norm is a constant to the gradient,
                        as in PEFT. Dropout acts on u alone. Devices cpu and reference. */
    lorica_lora_init init;
    uint64_t seed;               /* the same seed gives the same A on every device and platform, but with PiSSA */
    const char * target_modules; /* comma-separated names of linear layers, Hugging Face's (q_proj, c_attn, mlp.c_proj)
                                    or GGUF's (attn_q, attn_qkv): those that end so, from a dot on; full names such as
                                    blk.3.attn_q; the output head by its own, lm_head or output; "all-linear"
                                    (every linear layer but the output head); "default"
                                    (PEFT's where nothing is named: q_proj and v_proj, or the one layer of q, k and v).
                                    A name may carry a rank and an alpha of its own:
                                    "q_proj,v_proj:8,blk.3.attn_q:4:16". Later names overrule earlier ones.
                                    "" with IA3: PEFT's for this architecture, with its feedforward_modules, or k, v and
                                    the last of the feed-forward layers where it has none; not looked at by others. */
    lorica_method method;        /* what is above the seed is LoRA's alone */
    const char * feedforward_modules; /* IA3: which of the target modules have their input multiplied; NULL: none */
    /* A classifier beside it, of any method: outputs of a text, which losses of the caller's are about. It stands on
     * the first token of an encoder, as transformers' *ForSequenceClassification has it (BERT: pooler, which stays as
     * it is, and classifier; DistilBERT: pre_classifier and classifier; RoBERTa: dense and out_proj), or on the last
     * token of a decoder (score, without a bias). It is trained whole and stored with the adapter, and begins as the
     * model's where that has one of as many outputs, else as N(0, 0.02^2). */
    int32_t n_outputs;    /* 0: none */
    const char ** labels; /* [n_outputs] what the outputs are called; NULL: nothing */
    const char * problem; /* transformers' problem_type; NULL: "" */
    const char *
        modules_to_save; /* LoRA: comma-separated names of embeddings, norms, linear layers and the head (embed_tokens,
                            lm_head, norm; or GGUF's) that are trained whole and stored with the adapter; NULL: none. As
                            in PEFT, the head of a model that has none of its own is then no longer its embedding. */
    lorica_trained_biases bias;  /* LoRA; not with DoRA */
    const char * layers;         /* full: "0-3,7": these layers alone, nothing that is no layer; NULL: everything */
    const char * frozen;         /* full: "embed", "head" or "embed,head" are not trained; NULL: none */
    int32_t n_virtual_tokens;    /* prompts */
    const int32_t * virtual_ids; /* prompt tuning [n_virtual_tokens]: the tokens as whose embeddings they begin; NULL:
                                    N(0, 1) by the seed */
    int32_t encoder_hidden_size; /* P-tuning; 0: that of the embeddings */
    int32_t pissa_iterations;    /* of the search for the principal parts of a weight, PEFT's "pissa_niter_N"; 0: until
                                    they are found. Then devices differ in A and B by rounding. */
    int32_t bottleneck_size;     /* bottlenecks: how wide they are, up to n_embd */
    lorica_bottleneck_placement bottleneck_placement;
    const char *
        non_linearity; /* bottlenecks: AdapterHub's "relu", "swish", "gelu", "gelu_new" or "tanh"; NULL: relu */
    const int32_t *
        invocation_tokens; /* LoRA [n_invocation_tokens]: of an activated LoRA (aLoRA, Greenewald et al. 2025): the
                              delta is added from the first token of their last occurrence in a text on, as in PEFT
                              (alora_invocation_tokens), where a text is one sequence of a batch, or what is in a slot
                              of a KV cache; to none where they do not occur. What is trained whole beside it applies to
                              all. Decoders; not with DoRA, nor with outputs. */
    int32_t n_invocation_tokens; /* 0: a LoRA for all tokens */
} lorica_adapter_params;

/* rank 16, alpha 32, dropout 0, plain LoRA, default init, seed 42, target_modules "all-linear". */
LORICA_API lorica_status lorica_adapter_default_params(lorica_adapter_params * params);

typedef struct lorica_adapter_info {
    size_t struct_size; /* sizeof, set by the caller */
    int32_t rank;       /* of the first pair; pairs of a loaded adapter may differ */
    double alpha;
    double scale; /* alpha / rank or alpha / sqrt(rank), times the factor of lorica_adapter_set_scale */
    double dropout;
    bool use_rslora, use_dora;
    int32_t n_pairs;             /* (A, B) pairs */
    int64_t n_params;            /* trainable elements */
    const char * target_modules; /* Hugging Face short names, comma-separated; owned by the adapter */
    const char *
        base_fingerprint;     /* of the base it was trained on, "" when the file does not say; owned by the adapter */
    lorica_method method;     /* rank, alpha and n_pairs are 0 where it is not LoRA; scale is the factor then */
    int32_t n_outputs;        /* of its classifier; 0: it has none */
    const char * problem;     /* as it was made with; owned by the adapter */
    int32_t n_virtual_tokens; /* in front of every text */
    bool frozen_half;         /* the second half of each rank is not trained, see LORICA_LORA_INIT_PISSA; n_params does
                                 not count it */
    int32_t bottleneck_size;  /* of bottlenecks; 0: these are none */
    lorica_bottleneck_placement bottleneck_placement;
    const char * non_linearity;        /* of bottlenecks; "" where these are none */
    const int32_t * invocation_tokens; /* of an activated LoRA; owned by the adapter, NULL of all else */
    int32_t n_invocation_tokens;
} lorica_adapter_info;

/* What output i of its classifier is called, owned by the adapter; NULL where it has no name, or i is out of range. */
LORICA_API const char * lorica_adapter_label(const lorica_adapter * adapter, int32_t i);

LORICA_API lorica_status lorica_adapter_create(const lorica_model * model, const lorica_adapter_params * params,
                                               lorica_adapter ** out);

/* Loads a GGUF LoRA adapter (lorica's or llama.cpp's), or what lorica wrote of another method. Errors: IO, FORMAT,
 * MISMATCH (names what does not fit the model: architecture, a missing base tensor, a shape, an A without its B,
 * another base's fingerprint). */
LORICA_API lorica_status lorica_adapter_load(const lorica_model * model, const char * path, lorica_adapter ** out);

/* The sum of n_adapters >= 1 adapters of one model as one new adapter: adapter i, with its own scale, times factors[i]
 * (NULL: 1 for each). Ranks add up, scales are folded into B. It is a copy: later changes to the parts are not seen,
 * and they may be freed. It can be run, merged and saved as any other. A DoRA, and what is of another method than LoRA,
 * can be given a factor, but not be added to others; activated LoRAs only to those with the same invocation (a KV cache
 * has others beside them too). Errors: INVALID_ARGUMENT, UNSUPPORTED, OUT_OF_MEMORY. */
LORICA_API lorica_status lorica_adapter_stack(const lorica_adapter * const * adapters, const double * factors,
                                              int32_t n_adapters, lorica_adapter ** out);

/* Writes a GGUF LoRA adapter as llama.cpp loads it: F32, to a temporary name in the same folder, synced, renamed over
 * `path`. rsLoRA's factor is folded into adapter.lora.alpha, what a pair's own alpha makes different from that into its
 * B. A DoRA, which no LoRA can stand for, is written with adapter.type "dora", at which llama.cpp stops, and so are
 * "ia3", "bitfit", "full", "prompt_tuning", "p_tuning", "prefix_tuning" and "bottleneck", and a LoRA with tensors that
 * were trained whole, "lora_and_weights" or "dora_and_weights"; lorica_merge makes a model of it that llama.cpp runs.
 * The invocation of an activated LoRA is adapter.alora.invocation_tokens, which llama.cpp's server obeys. Errors: IO;
 * the old file then stays as it was. */
LORICA_API lorica_status lorica_adapter_save(const lorica_adapter * adapter, const char * path);
LORICA_API void lorica_adapter_free(lorica_adapter * adapter);
LORICA_API lorica_status lorica_adapter_get_info(const lorica_adapter * adapter, lorica_adapter_info * out);

/* Multiplies the adapter's effect at run time; 1 is as trained, 0 is the base. Not stored. With DoRA, B A is
 * multiplied, and how far m is from |W|; with IA3 and BitFit, how far each number is from where it began. */
LORICA_API lorica_status lorica_adapter_set_scale(lorica_adapter * adapter, double factor);

/* Whether anything is other than before training: a B that is not zero, or a tensor that is not where it began. Errors:
 * NON_FINITE for a number that is not finite, naming its tensor. */
LORICA_API lorica_status lorica_adapter_check(const lorica_adapter * adapter, bool * has_effect);

/* The trainable tensors, each told by its name; their order is fixed, so that states fit. Of a LoRA A[r, in] and
 * B[out, r], of a DoRA m[out, 1] too, then what is trained whole; of IA3 each l, of BitFit each bias and each norm's
 * weight [n, 1], of full fine-tuning each tensor of the model that is trained, of a prompt "prompt_embeddings",
 * behind those of the encoder that makes it (P-tuning), and of no gradient then; of a classifier cls.weight and
 * cls.bias (where a layer before the outputs is trained), cls.output.weight[n_outputs, n_embd] and cls.output.bias.
 * */
typedef struct lorica_adapter_tensor {
    size_t struct_size; /* sizeof, set by the caller */
    const char * name;  /* "blk.0.attn_q.weight.lora_a", ….lora_b, ….lora_magnitude_vector, ….ia3_l;
                           "blk.0.attn_norm.weight",  "blk.0.attn_q.bias"; owned by the adapter */
    int64_t rows, cols;
    double alpha; /* of its pair: B A is scaled by alpha / rank, or alpha / sqrt(rank) when use_rslora */
} lorica_adapter_tensor;

LORICA_API int32_t lorica_adapter_n_tensors(const lorica_adapter * adapter);
LORICA_API lorica_status lorica_adapter_tensor_info(const lorica_adapter * adapter, int32_t i,
                                                    lorica_adapter_tensor * out);

/* Copies tensor i out of or into the adapter as f32[rows, cols]; n is rows * cols, checked. */
LORICA_API lorica_status lorica_adapter_get_tensor(const lorica_adapter * adapter, int32_t i, float * data, int64_t n);
LORICA_API lorica_status lorica_adapter_set_tensor(lorica_adapter * adapter, int32_t i, const float * data, int64_t n);

/* ---------------------------------------------------------------------------------------------------------------
 * Writing model files: merge, quantize, convert. Tensors are streamed, so that memory does not grow with the model, and
 * files appear under their name only when they are complete.
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_write_params {
    size_t struct_size; /* sizeof, set by the caller */
    const char * type;  /* of the matrices in the new file: any of ggml's types ("F32", "F16", "BF16", "Q8_0", "IQ4_NL",
                           …) or a mix of llama.cpp's (Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M),
                           which gives some tensors more bits. Q3_K, Q4_K and Q5_K mean the _M mix. As llama.cpp does it,
                           the output head gets at least Q6_K, and a tensor whose rows are no whole number of blocks the
                           next larger type that fits. NULL: every tensor keeps its type, but those that an adapter
                           changes become F16; of full fine-tuning only where they are quantized. Norms and other vectors
                           are always copied. */
    int32_t n_threads;  /* 0: all cores that this process may run on. The result does not depend on it. */
} lorica_write_params;

/* type NULL, n_threads 0. */
LORICA_API lorica_status lorica_write_default_params(lorica_write_params * params);

/* Writes the model with the adapter folded in, W + scale B A, with DoRA times m / |W + scale B A|, where scale includes
 * the factor of lorica_adapter_set_scale; with IA3 its factors times the rows, with their biases, or the columns; with
 * BitFit, full fine-tuning and modules to save the trained tensors in place of the model's, and a classifier with the
 * keys by which llama.cpp computes with it (pooling "rank"). The sum is computed in f32 and rounded once, to the type
 * that the tensor gets. adapter may be NULL. Errors: INVALID_ARGUMENT (the adapter is another model's, the type does
 * not exist), UNSUPPORTED (a type that needs an importance matrix, an adapter that is no change of weights: an
 * activated LoRA, a prompt, a bottleneck), NON_FINITE, IO. */
LORICA_API lorica_status lorica_merge(const lorica_model * model, const lorica_adapter * adapter, const char * path,
                                      const lorica_write_params * params);

/* The same for the GGUF file of any architecture, without an adapter; params->type must be given. Errors: as
 * lorica_merge, FORMAT. */
LORICA_API lorica_status lorica_quantize(const char * source, const char * target, const lorica_write_params * params);

/* Writes the model with these tokens behind those of its vocabulary, as user-defined ones: wherever one stands in a
 * text, it is one token. Their rows of the embedding, and of the head where there is one, are the means of the rows
 * that are there, in the same types, as transformers' resize_token_embeddings begins them but for its noise (a
 * covariance of 1e-9); they are learned where an adapter has these as modules to save. All else is copied. Errors:
 * INVALID_ARGUMENT (n_tokens is 0, a token is empty, there already, or given twice), UNSUPPORTED (WordPiece, a type
 * that needs an importance matrix), IO, FORMAT. */
LORICA_API lorica_status lorica_add_tokens(const char * source, const char * const * tokens, int64_t n_tokens,
                                           const char * target);

/* A GGUF v3 file in the making: first metadata and tensors in the order in which they are to stand in the file, then
 * lorica_gguf_writer_write, which reads the tensors. Errors: INVALID_ARGUMENT for a name that is empty, too long or
 * there already, and for shapes that are no whole number of blocks. */
typedef struct lorica_gguf_writer lorica_gguf_writer;
LORICA_API lorica_status lorica_gguf_writer_create(lorica_gguf_writer ** out);
LORICA_API void lorica_gguf_writer_free(lorica_gguf_writer * writer);
LORICA_API lorica_status lorica_gguf_writer_set_u32(lorica_gguf_writer * writer, const char * key, uint32_t value);
LORICA_API lorica_status lorica_gguf_writer_set_f32(lorica_gguf_writer * writer, const char * key, float value);
LORICA_API lorica_status lorica_gguf_writer_set_bool(lorica_gguf_writer * writer, const char * key, bool value);
LORICA_API lorica_status lorica_gguf_writer_set_string(lorica_gguf_writer * writer, const char * key,
                                                       const char * value);
/* String i is bytes [offsets[i], offsets[i + 1]) of `bytes`; offsets has n + 1 entries, ascending. */
LORICA_API lorica_status lorica_gguf_writer_set_strings(lorica_gguf_writer * writer, const char * key,
                                                        const char * bytes, const int64_t * offsets, int64_t n);
LORICA_API lorica_status lorica_gguf_writer_set_bools(lorica_gguf_writer * writer, const char * key,
                                                      const bool * values, int64_t n);
LORICA_API lorica_status lorica_gguf_writer_set_i32s(lorica_gguf_writer * writer, const char * key,
                                                     const int32_t * values, int64_t n);
LORICA_API lorica_status lorica_gguf_writer_set_f32s(lorica_gguf_writer * writer, const char * key,
                                                     const float * values, int64_t n);

/* A tensor that lies in another file as rows of plain numbers. */
typedef struct lorica_tensor_source {
    size_t struct_size; /* sizeof, set by the caller */
    const char * path;
    uint64_t offset;           /* bytes from the start of that file */
    const char * type;         /* "F32", "F16" or "BF16" */
    const int64_t * row_order; /* [rows] row i of the tensor is row row_order[i] of the source; copied. NULL: row i */
    bool transposed; /* the source has the tensor's columns as rows: it is a matrix of cols rows and `rows` columns. Not
                        with row_order */
} lorica_tensor_source;

/* Adds tensor name[rows, cols], in ggml's order ne = (cols, rows), or ne = (cols) when rows is 0, converted to `type`.
 * The source is opened now and read by lorica_gguf_writer_write. Errors: IO, FORMAT (the source ends before the
 * tensor), UNSUPPORTED. */
LORICA_API lorica_status lorica_gguf_writer_add_tensor(lorica_gguf_writer * writer, const char * name,
                                                       const char * type, int64_t rows, int64_t cols,
                                                       const lorica_tensor_source * source);
/* Adds the F32 vector values[n], which is copied. */
LORICA_API lorica_status lorica_gguf_writer_add_vector(lorica_gguf_writer * writer, const char * name,
                                                       const float * values, int64_t n);
/* Errors: IO, NON_FINITE; a file that was there before then stays as it was. */
LORICA_API lorica_status lorica_gguf_writer_write(lorica_gguf_writer * writer, const char * path);

/* ---------------------------------------------------------------------------------------------------------------
 * Architectures: which tensors a model has, and what they are called
 * ------------------------------------------------------------------------------------------------------------- */

/* The table of a model's tensors, in the order of the computation. It is the one that models are loaded by. */
typedef struct lorica_architecture lorica_architecture;

typedef enum lorica_tensor_kind {
    LORICA_TENSOR_EMBEDDING = 0,
    LORICA_TENSOR_LINEAR = 1, /* what adapters may sit on */
    LORICA_TENSOR_NORM = 2,
    LORICA_TENSOR_BIAS = 3,
    LORICA_TENSOR_HEAD = 4,
    LORICA_TENSOR_CLASSIFIER = 5 /* what makes classes of a hidden state: behind the others, and only in files of
                                    classifiers */
} lorica_tensor_kind;

typedef struct lorica_architecture_tensor {
    size_t struct_size; /* sizeof, set by the caller */
    lorica_tensor_kind kind;
    int32_t layer;             /* -1: of none */
    const char * name;         /* in GGUF files: "blk.0.attn_q.weight"; owned by the handle */
    const char * hf_name;      /* in Hugging Face's: "model.layers.0.self_attn.q_proj.weight"; owned by the handle */
    int64_t rows, cols;        /* W[rows, cols]: out and in; cols 1 for a vector of `rows` elements. rows 0: as many as
                                  the classifier has outputs */
    const int64_t * row_order; /* [rows] row i is row row_order[i] in Hugging Face's file, of a LoRA's B, a DoRA's
                                  magnitudes and a bias too; owned by the handle. NULL: row i. The halves of each head
                                  of q and k that rotate are interleaved, and where q, k and v are one layer, all of q
                                  stand before k and v. */
    bool conv1d;               /* Hugging Face stores it transposed, [in, out] */
    bool is_optional;          /* may be missing: the embedding stands in for the head, or it is no classifier */
} lorica_architecture_tensor;

/* Of a loaded model, or of the metadata that a writer holds, before it has any tensors: general.architecture, the
 * numbers of that architecture, its vocab_size and, in the array lorica.tensors, names of tensors of the first layer
 * that only some models of the architecture have ("blk.0.attn_q.bias"). Errors: UNSUPPORTED, FORMAT. */
LORICA_API lorica_status lorica_architecture_of_model(const lorica_model * model, lorica_architecture ** out);
LORICA_API lorica_status lorica_architecture_of_metadata(const lorica_gguf_writer * writer, lorica_architecture ** out);
LORICA_API void lorica_architecture_free(lorica_architecture * architecture);

LORICA_API int32_t lorica_architecture_n_tensors(const lorica_architecture * architecture);
LORICA_API lorica_status lorica_architecture_get_tensor(const lorica_architecture * architecture, int32_t i,
                                                        lorica_architecture_tensor * out);

/* ---------------------------------------------------------------------------------------------------------------
 * Training
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_session lorica_session;

typedef enum lorica_recomputation {
    LORICA_RECOMPUTATION_AUTO =
        0, /* recompute as few layers as leave a tenth of the free memory, or fit into memory_limit */
    LORICA_RECOMPUTATION_OFF = 1, /* keep all activations */
    LORICA_RECOMPUTATION_ON = 2   /* of each layer but the last keep its input and the output of its attention, and
                                     recompute the rest in the backward pass */
} lorica_recomputation;

typedef enum lorica_optimizer {
    LORICA_OPTIMIZER_ADAMW = 0,
    LORICA_OPTIMIZER_ADAMW_8BIT = 1 /* moments in 8 bits, 256 elements to a block (Dettmers et al. 2022): a quarter of
                                       the memory. Devices cpu and reference. */
} lorica_optimizer;

typedef struct lorica_session_params {
    size_t struct_size;          /* sizeof, set by the caller */
    int32_t max_tokens;          /* the most tokens of one micro-batch (T) */
    int32_t max_sequences;       /* the most sequences packed into it; 0: max_tokens */
    int32_t max_sequence_length; /* the longest single sequence; 0: max_tokens */
    lorica_recomputation recomputation;
    lorica_optimizer optimizer;
    double beta1, beta2, eps;
    double neftune_alpha; /* NEFTune (Jain et al. 2023): while training, the embeddings of a sequence of L tokens get
                             uniform noise of magnitude neftune_alpha / sqrt(L n_embd); 0: none */
    uint64_t seed;        /* of dropout and noise */
    int64_t memory_limit; /* bytes that the plan may use; 0: what the system reports as available */
    bool features;        /* lorica_session_embed is wanted; an encoder, and whatever has a classifier, has it anyway */
    bool likeliest;       /* lorica_session_evaluate_likeliest is wanted */
    int32_t n_candidates; /* the most tokens of a position in lorica_session_forward_candidates; 0: it is not wanted.
                             Devices cpu and reference */
    bool gradients_only;  /* no optimizer, and no memory for one: gradients are read with lorica_session_get_gradients,
                             and a session elsewhere takes the steps. Steps, groups and states are refused */
} lorica_session_params;

/* max_tokens 512, recomputation auto, AdamW, betas 0.9 and 0.999, eps 1e-8, no noise, seed 42. */
LORICA_API lorica_status lorica_session_default_params(lorica_session_params * params);

/* Bytes by component. total is the sum of the others. */
typedef struct lorica_memory_plan {
    size_t struct_size; /* sizeof, set by the caller */
    int64_t weights;    /* the mapped file, or its copies on the device */
    int64_t adapter;    /* A and B, with DoRA m and the norms */
    int64_t gradients;
    int64_t optimizer;   /* AdamW's two moments; 0 with gradients_only */
    int64_t activations; /* kept from forward to backward */
    int64_t workspace;   /* scratch of single operations, all threads together */
    int64_t total;
    int64_t available;         /* what total is held against */
    int32_t recomputed_layers; /* layers that do not keep all their activations, which is what the numbers are for */
    bool fits;
} lorica_memory_plan;

/* Computes the plan without allocating. */
LORICA_API lorica_status lorica_session_get_plan(const lorica_model * model, const lorica_adapter * adapter,
                                                 const lorica_session_params * params, lorica_memory_plan * out);

/* Allocates all that the plan names, once. The adapter's tensors are trained in place. Without an adapter (NULL) the
 * session only evaluates the model as it is, and refuses what is about gradients, steps and states. Errors:
 * OUT_OF_MEMORY with the setting that would fit; INVALID_ARGUMENT, the adapter is in another session already. */
LORICA_API lorica_status lorica_session_create(const lorica_model * model, lorica_adapter * adapter,
                                               const lorica_session_params * params, lorica_session ** out);
LORICA_API void lorica_session_free(lorica_session * session);

/* A packed micro-batch: sequences one after another without padding; attention never crosses a boundary. */
typedef struct lorica_batch {
    size_t struct_size;        /* sizeof, set by the caller */
    const int32_t * tokens;    /* [n_tokens] */
    const int32_t * labels;    /* [n_tokens] what position t is to predict: the id that follows it (already shifted), or
                                  -100: not trained. The last position of a sequence therefore has -100. */
    const int32_t * positions; /* [n_tokens] for RoPE; NULL: 0, 1, 2, … within each sequence */
    const int32_t * sequence_lengths; /* [n_sequences], each >= 1, their sum n_tokens */
    int32_t n_tokens;
    int32_t n_sequences;
    int64_t number; /* of the micro-batch in the whole training, which seeds dropout and noise: with the same number
                       they are the same, in any session and order; < 0: one more than that of the last */
    const int32_t * token_types; /* [n_tokens] BERT's: 0 in the first text of a sequence, 1 in the second; NULL: 0.
                                    Models without types do not look at them */
} lorica_batch;

/* No positions, number -1, no tokens. */
LORICA_API lorica_status lorica_batch_default(lorica_batch * batch);

typedef struct lorica_batch_result {
    size_t struct_size; /* sizeof, set by the caller */
    double loss_sum;    /* sum over trained labels of -log p(label) */
    int64_t n_trained;  /* labels that are not -100 */
} lorica_batch_result;

/* Adds the gradients of loss_sum (a sum, not a mean) to the session's gradients. Errors: INVALID_ARGUMENT (larger than
 * the plan, an id outside the vocabulary, lengths that do not add up, no trained label), NON_FINITE (the gradients are
 * of no use then; call lorica_session_zero_gradients before going on). */
LORICA_API lorica_status lorica_session_forward_backward(lorica_session * session, const lorica_batch * batch,
                                                         lorica_batch_result * out);

/* The same in two halves, for losses that depend on the log-probabilities of several tokens: preferences, rewards,
 * one's own. lorica_session_forward writes -log p(label) for each position, token_nll[n_tokens], 0 where the label is
 * -100; lorica_session_backward adds the gradients of sum_t weights[t] token_nll[t] to the session's,
 * weights[n_tokens]. So the gradients of a loss L are those of weights d L / d token_nll, and weights 1 are
 * lorica_session_forward_backward, to the bit. Weights of positions without a label are not read. Between the two the
 * session and the adapter must be left alone: an evaluation, a step or another micro-batch in between makes
 * lorica_session_backward return INVALID_ARGUMENT, and one forward serves one backward. Errors: as
 * lorica_session_forward_backward; NON_FINITE for weights too. */
LORICA_API lorica_status lorica_session_forward(lorica_session * session, const lorica_batch * batch, float * token_nll,
                                                lorica_batch_result * out);
LORICA_API lorica_status lorica_session_backward(lorica_session * session, const float * weights, int32_t n_weights);

/* The same of several tokens at each labelled position, its candidates: for losses that are functions of more of the
 * model's distribution than of one token, such as its divergence from a teacher's. With L labelled positions and K
 * candidates of each, n is L * K, and candidates[L, K], token_nll[L, K] and weights[L, K] have the positions in their
 * order; of each, ids ascend strictly. lorica_session_forward_candidates writes -log softmax(logits / temperature) of
 * every candidate; lorica_session_backward_candidates adds the gradients of sum_lk weights[l, k] token_nll[l, k]: with
 * all V tokens as candidates that is any function of the distribution. Labels say which positions there are; their ids
 * do not matter. The head runs once more in the second half: no logits are kept, and of memory the session has
 * 12 bytes more for each token and candidate. out->loss_sum is the sum of token_nll. lorica_session_evaluate_candidates
 * is without dropout and noise, and leaves gradients alone. Between forward and backward the session must be left
 * alone, as with lorica_session_backward. Errors: as there; INVALID_ARGUMENT for n, ids, a K above n_candidates of the
 * session's parameters, and a temperature that is not more than 0. */
LORICA_API lorica_status lorica_session_forward_candidates(lorica_session * session, const lorica_batch * batch,
                                                           const int32_t * candidates, int64_t n, double temperature,
                                                           float * token_nll, lorica_batch_result * out);
LORICA_API lorica_status lorica_session_backward_candidates(lorica_session * session, const float * weights, int64_t n);
LORICA_API lorica_status lorica_session_evaluate_candidates(lorica_session * session, const lorica_batch * batch,
                                                            const int32_t * candidates, int64_t n, double temperature,
                                                            float * token_nll, lorica_batch_result * out);

/* The K likeliest tokens at each of the L labelled positions by softmax(logits / temperature), without dropout and
 * noise: ids[L, K], ascending within a position, and log_probs[L, K]. n is L * K; K is at most the vocabulary. Of
 * tokens that are equally likely those with lower ids are taken. Logits of at most 128 positions are there at once.
 * out->loss_sum is 0. Errors: INVALID_ARGUMENT (the session was made without `likeliest`, n, the temperature),
 * NON_FINITE. */
LORICA_API lorica_status lorica_session_evaluate_likeliest(lorica_session * session, const lorica_batch * batch,
                                                           double temperature, int32_t * ids, float * log_probs,
                                                           int64_t n, lorica_batch_result * out);

/* What a classifier makes of each sequence, outputs[n_sequences, n_outputs] of the adapter, or of the model where the
 * adapter has none: logits, before any softmax or sigmoid. batch->labels is not looked at and may be NULL. After
 * lorica_session_forward_outputs, lorica_session_backward_outputs adds the gradients of a loss L to the session's,
 * given gradients[n_sequences, n_outputs] of d L / d outputs: cross-entropy, squares, a reward model's pairs, whatever
 * the caller has. lorica_session_evaluate_outputs is without dropout and noise, and leaves gradients alone. `n` is
 * n_sequences * n_outputs. Between forward and backward the session must be left alone, as with
 * lorica_session_backward. Errors: INVALID_ARGUMENT (there is no classifier, a size, a position that the model has not
 * learned), NON_FINITE. */
LORICA_API lorica_status lorica_session_forward_outputs(lorica_session * session, const lorica_batch * batch,
                                                        float * outputs, int64_t n);
LORICA_API lorica_status lorica_session_backward_outputs(lorica_session * session, const float * gradients, int64_t n);
LORICA_API lorica_status lorica_session_evaluate_outputs(lorica_session * session, const lorica_batch * batch,
                                                         float * outputs, int64_t n);

typedef enum lorica_pooling {
    LORICA_POOLING_MEAN = 0,  /* of all tokens of a text, special ones too */
    LORICA_POOLING_FIRST = 1, /* [CLS] */
    LORICA_POOLING_LAST = 2
} lorica_pooling;

/* One vector for each sequence, embeddings[n_sequences, n_embd], of the hidden states behind the last layer and its
 * norm; not normalized. n is n_sequences * n_embd. Errors: INVALID_ARGUMENT (the session was made without features),
 * NON_FINITE. */
LORICA_API lorica_status lorica_session_embed(lorica_session * session, const lorica_batch * batch,
                                              lorica_pooling pooling, float * embeddings, int64_t n);

/* From another thread, at any time: while cancelled is true, calls that put a micro-batch through the model return
 * CANCELLED as soon as the operation that runs is done, a running call included; optimizer steps, and what saves and
 * loads, are not stopped half way. After a cancelled lorica_session_forward_backward or lorica_session_backward the
 * gradients are of no use; call lorica_session_zero_gradients before going on. */
LORICA_API void lorica_session_cancel(lorica_session * session, bool cancelled);

/* Loss alone, without dropout and noise, gradients untouched. token_nll, when not NULL, receives -log p(label) for each
 * position [n_tokens], 0 where the label is -100. Errors: INVALID_ARGUMENT, NON_FINITE. */
LORICA_API lorica_status lorica_session_evaluate(lorica_session * session, const lorica_batch * batch,
                                                 float * token_nll, lorica_batch_result * out);

/* The same of the model without the session's adapter: what preference losses call the reference. */
LORICA_API lorica_status lorica_session_evaluate_base(lorica_session * session, const lorica_batch * batch,
                                                      float * token_nll, lorica_batch_result * out);

typedef struct lorica_optimizer_step_params {
    size_t struct_size; /* sizeof, set by the caller */
    double learning_rate;
    double weight_decay;  /* decoupled: p -= lr * wd * p before the update; every tensor is decayed */
    double grad_scale;    /* gradients are multiplied by it first: 1 / trained tokens of the accumulation group */
    double max_grad_norm; /* clip the total L2 norm of the scaled gradients by max / (norm + 1e-6); <= 0: never */
} lorica_optimizer_step_params;

/* learning_rate 0, no decay, grad_scale 1, no clipping. */
LORICA_API lorica_status lorica_optimizer_step_default_params(lorica_optimizer_step_params * params);

/* One AdamW step (Loshchilov & Hutter 2019, bias-corrected) on all trainable tensors, then gradients are zeroed.
 * *grad_norm receives the scaled norm before clipping. Errors: NON_FINITE, nothing is updated then. */
LORICA_API lorica_status lorica_session_optimizer_step(lorica_session * session,
                                                       const lorica_optimizer_step_params * params, double * grad_norm);

/* Parameter groups: what the steps to come multiply learning rate and weight decay by for adapter tensor i; 1 and 1 at
 * the start. LoRA+ (Hayou et al. 2024) is a factor above 1 on the learning rate of every B. The state does not remember
 * them. */
LORICA_API lorica_status lorica_session_set_group(lorica_session * session, int32_t i, double learning_rate_factor,
                                                  double weight_decay_factor);

LORICA_API lorica_status lorica_session_zero_gradients(lorica_session * session);

/* What model FLOPs utilization (Chowdhery et al. 2022, appendix B) is made of, as a share: tokens per second times
 * flops_per_token / peak_flops. A LoRA step is counted as 4 operations per token and weight (2 forward, 2 for the
 * gradient of the input), over the linear weights of the blocks and the head. */
typedef struct lorica_session_speed {
    size_t struct_size; /* sizeof, set by the caller */
    double flops_per_token;
    double peak_flops; /* per second, all threads, on products that stay in the cache; measured by the call; 0: not
                          known */
} lorica_session_speed;

/* Takes about 20 ms. */
LORICA_API lorica_status lorica_session_measure_speed(lorica_session * session, lorica_session_speed * out);

/* Steps done, including those of a loaded state. */
LORICA_API int64_t lorica_session_step_count(const lorica_session * session);

/* Copies the gradient sums of adapter tensor i, f32[rows, cols], out of or into the session; n is rows * cols,
 * checked. */
LORICA_API lorica_status lorica_session_get_gradient(const lorica_session * session, int32_t i, float * data,
                                                     int64_t n);
LORICA_API lorica_status lorica_session_set_gradient(lorica_session * session, int32_t i, const float * data,
                                                     int64_t n);

/* The gradient sums of all adapter tensors, one after another in their order: n is lorica_adapter_info.n_params. What
 * sessions on several machines, each with its own micro-batches, have summed up is so added into one (+=), whose step
 * is then that of all. */
LORICA_API lorica_status lorica_session_get_gradients(const lorica_session * session, float * data, int64_t n);
LORICA_API lorica_status lorica_session_set_gradients(lorica_session * session, const float * data, int64_t n);
LORICA_API lorica_status lorica_session_add_gradients(lorica_session * session, const float * data, int64_t n);

/* Everything that the next step depends on, as it was after the last step: the adapter, moments, step count, position
 * of the dropout stream. Gradients added up since then are not part of it, and loading sets them to zero. Written
 * atomically; loading checks a checksum and that it belongs to this adapter's shapes and this optimizer. Errors: IO,
 * FORMAT, MISMATCH, UNSUPPORTED; nothing is changed then. */
LORICA_API lorica_status lorica_session_save_state(const lorica_session * session, const char * path);
LORICA_API lorica_status lorica_session_load_state(lorica_session * session, const char * path);

/* ---------------------------------------------------------------------------------------------------------------
 * Running: a KV cache is what texts are put through
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct lorica_kv_cache lorica_kv_cache;

/* adapter may be NULL: the base alone. n_ctx positions are allocated; of layers with a window, as many as it has and
 * 512 more, if that is less. Errors: OUT_OF_MEMORY. */
LORICA_API lorica_status lorica_kv_cache_create(const lorica_model * model, const lorica_adapter * adapter,
                                                int32_t n_ctx, lorica_kv_cache ** out);
LORICA_API void lorica_kv_cache_free(lorica_kv_cache * cache);

/* Positions filled so far. */
LORICA_API int32_t lorica_kv_cache_n_past(const lorica_kv_cache * cache);

/* Appends n_tokens tokens after those already in the cache and writes logits: of the last token, logits[V], when
 * all_logits is false; of every token, logits[n_tokens, V], when it is true. logits may be NULL. Prompts are processed
 * in pieces inside. Where the invocation of an activated LoRA comes, or comes again, what is in the cache from there
 * on, or from where it came before, is computed anew: the logits are those of the text as it is with all these tokens,
 * and after CANCELLED there may be fewer positions than before. Before the first token that goes through by itself, the
 * cpu device copies the linear weights into the order in which it reads them then: as many bytes once more, shared by
 * the KV caches of a model while any of them lives, and left out where they would take more than three quarters of the
 * memory that is available. Errors: INVALID_ARGUMENT (an id outside the vocabulary, more positions than n_ctx). */
LORICA_API lorica_status lorica_kv_cache_eval(lorica_kv_cache * cache, const int32_t * tokens, int32_t n_tokens,
                                              bool all_logits, float * logits);

/* From another thread, at any time: while cancelled is true, lorica_kv_cache_eval returns CANCELLED as soon as the
 * operation that runs is done, a running call included. What it had appended before stays: whole pieces of the prompt,
 * see lorica_kv_cache_n_past. */
LORICA_API void lorica_kv_cache_cancel(lorica_kv_cache * cache, bool cancelled);

/* From now on applies the sum of n_adapters adapters, each times factors[i] (NULL: 1 for each); 0: the base alone. The
 * model is not loaded again. Empties the cache, whose keys and values belong to what was applied before. A single
 * adapter with factor 1 is applied as it is; of anything else a copy is made (see lorica_adapter_stack), so one call
 * costs about what copying A and B costs. Errors: INVALID_ARGUMENT (another model's adapter, a factor that is not
 * finite), OUT_OF_MEMORY; nothing is changed then. */
LORICA_API lorica_status lorica_kv_cache_set_adapters(lorica_kv_cache * cache, const lorica_adapter * const * adapters,
                                                      const double * factors, int32_t n_adapters);

/* Forgets all positions from n_past on; n_past 0 empties the cache. Of several texts, of that in slot 0. Layers with a
 * window forget what left it: where the position n_past would see such a one, all positions are forgotten, which
 * lorica_kv_cache_n_past says. The token that was appended last can always be cut off. */
LORICA_API lorica_status lorica_kv_cache_truncate(lorica_kv_cache * cache, int32_t n_past);

/* A cache of n_slots texts of up to n_ctx positions each, with the same adapter until lorica_kv_cache_slot_set_adapters
 * says otherwise. What is above is about slot 0; adapters and cancelling about all. A text has the logits that it has
 * by itself, up to rounding: with other rows beside them, products of rows are summed up in another order. Errors: as
 * lorica_kv_cache_create. */
LORICA_API lorica_status lorica_kv_cache_create_many(const lorica_model * model, const lorica_adapter * adapter,
                                                     int32_t n_ctx, int32_t n_slots, lorica_kv_cache ** out);

/* Appends to n different slots: n_tokens[i] tokens to slots[i], all of them one after another in `tokens`. logits is
 * NULL or receives those of the last token of each, [n, V]. Errors: as lorica_kv_cache_eval, a slot that is named
 * twice. After CANCELLED, some of the slots may be appended to: see lorica_kv_cache_slot_n_past. */
LORICA_API lorica_status lorica_kv_cache_eval_many(lorica_kv_cache * cache, const int32_t * slots,
                                                   const int32_t * n_tokens, int32_t n, const int32_t * tokens,
                                                   float * logits);

/* Of one slot. -1: there is no such slot. */
LORICA_API int32_t lorica_kv_cache_slot_n_past(const lorica_kv_cache * cache, int32_t slot);
LORICA_API lorica_status lorica_kv_cache_slot_truncate(lorica_kv_cache * cache, int32_t slot, int32_t n_past);

/* lorica_kv_cache_set_adapters for one slot, which it empties; the others keep theirs. Slots with sums of LoRAs, each
 * with its own or none, are computed together, those with adapters of another kind (DoRA, IA3, weights trained whole)
 * one set after another. Adapters that are computed beside others are copied when they are first, and again only once
 * no slot has had them: who changes one takes it from all slots and gives it back. Errors: likewise, and UNSUPPORTED
 * for virtual tokens (prompts, prefixes), which all slots have or none. */
LORICA_API lorica_status lorica_kv_cache_slot_set_adapters(lorica_kv_cache * cache, int32_t slot,
                                                           const lorica_adapter * const * adapters,
                                                           const double * factors, int32_t n_adapters);

/* Makes the first n_past positions of slot `from` the text of slot `to`, which has the same adapters: a prompt that
 * many answers share is processed once. `to` is empty afterwards where lorica_kv_cache_slot_truncate to n_past would
 * have emptied `from`. */
LORICA_API lorica_status lorica_kv_cache_slot_copy(lorica_kv_cache * cache, int32_t from, int32_t to, int32_t n_past);

#ifdef __cplusplus
}
#endif

#endif /* LORICA_H */
