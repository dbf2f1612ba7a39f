package dev.lorica.cli;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * What becomes of the settings of other programs that are no options of ours: of Hugging Face's Trainer, PEFT, TRL, Axolotl,
 * LLaMA-Factory and mlx-lm. What would change the result is obeyed or refused, never passed over.
 */
final class ForeignKeys {
    /** Keys for which only these values describe what is done here. */
    private static final Map<String, Set<String>> ONLY = Map.ofEntries(
            Map.entry("stage", Set.of("sft")),
            Map.entry("do_train", Set.of("true")),
            Map.entry("train", Set.of("true")),
            Map.entry("peft_type", Set.of("lora")),
            Map.entry("use_peft", Set.of("true")),
            Map.entry("task_type", Set.of("causal_lm")),
            Map.entry("lora_bias", Set.of("none", "false")),
            Map.entry("fan_in_fan_out", Set.of("false")),
            Map.entry("assistant_only_loss", Set.of("true")),
            Map.entry("completion_only_loss", Set.of("true")),
            Map.entry("mask_history", Set.of("false")),
            Map.entry("train_on_eos", Set.of("turn")),
            Map.entry("roles_to_train", Set.of("assistant", "gpt")),
            Map.entry("split", Set.of("train")),
            Map.entry("lora_dtype", Set.of("auto", "float32", "fp32")),
            Map.entry("f_divergence_type", Set.of("reverse_kl")),
            Map.entry("multi_objective_aggregation", Set.of("sum_then_normalize")),
            Map.entry("use_bias_correction_kl", Set.of("true")),
            Map.entry("top_entropy_quantile", Set.of("1", "1.0")),
            Map.entry("sapo_temperature_pos", Set.of("1", "1.0")),
            Map.entry("sapo_temperature_neg", Set.of("1.05")),
            Map.entry("steps_per_generation", Set.of("null")),
            Map.entry("generation_batch_size", Set.of("null")),
            Map.entry("num_generations_eval", Set.of("null")),
            Map.entry("lmbda", Set.of("0", "0.0")),
            Map.entry("loss_add_tail", Set.of("true")),
            Map.entry("shuffle_merged_datasets", Set.of("true")),
            Map.entry("mix_strategy", Set.of("concat")),
            Map.entry("enable_thinking", Set.of("true")),
            Map.entry("use_tensorboard", Set.of("true", "false")),
            Map.entry("logging_strategy", Set.of("steps")));

    /** Keys that would change the result, and of which nothing but their absence is done here. */
    private static final Set<String> MUST_BE_OFF = Set.of(
            "pissa_init",
            "pissa_convert",
            "layer_replication",
            "layers_pattern",
            "target_parameters",
            "trainable_token_indices",
            "label_smoothing_factor",
            "freeze_trainable_layers",
            "freeze_trainable_modules",
            "unfrozen_parameters",
            "use_galore",
            "use_apollo",
            "use_badam",
            "relora_steps",
            "rope_scaling",
            "rope_theta",
            "noisy_embedding_alpha",
            "add_special_tokens",
            "new_special_tokens",
            "tokens",
            "resize_vocab",
            "neat_packing",
            "streaming",
            "disable_shuffling",
            "create_new_adapter",
            "curriculum_sampling",
            "shift_attn",
            "mixture_of_depths",
            "use_llama_pro",
            "reft",
            "cosine_min_lr_ratio",
            "cosine_constant_lr_ratio",
            "lr_groups",
            "embedding_lr",
            "rl",
            "dataloader_drop_last",
            "dataset_exact_deduplication",
            "tokenizer_config",
            "chat_template_kwargs",
            "off_policy_mask_threshold",
            "sync_ref_model",
            "ref_adapter_name",
            "entropy_coef",
            "use_adaptive_entropy",
            "max_tool_calling_iterations",
            "generation_kwargs",
            "seq_kd",
            "teacher_model_init_kwargs",
            "teacher_model_server_url",
            "use_weighting",
            "ld_alpha",
            "disable_dropout",
            "teacher_model_revision",
            "loss_weights",
            "rpo_alpha");

    /** Keys for things that are of use elsewhere, and do not come about here. */
    private static final Set<String> WILL_NOT_HAPPEN = Set.of(
            "plot_loss",
            "do_predict",
            "predict_with_generate",
            "compute_accuracy",
            "do_bench_eval",
            "test",
            "save_only_model",
            "loss_watchdog_threshold",
            "loss_watchdog_patience",
            "eval_on_start",
            "eval_table_size",
            "do_causal_lm_eval",
            "eval_causal_lm_metrics",
            "logging_first_step",
            "include_num_input_tokens_seen",
            "include_tokens_per_second",
            "deepspeed",
            "fsdp",
            "fsdp_config",
            "profiler_steps",
            "gc_steps",
            "export_dir",
            "merge_lora",
            "hub_strategy",
            "hub_always_push",
            "hub_token",
            "push_dataset_to_hub",
            "log_completions",
            "log_unique_prompts",
            "num_completions_to_print",
            "log_completions_hub_repo",
            "debug");

    private static final Pattern OF_SERVICES = Pattern.compile(
            "(wandb|use_wandb|mlflow|use_mlflow|comet|use_comet|swanlab|use_swanlab|trackio|ray)(_.*)?");

    /** Keys that have no meaning here: about graphics cards, processes, the types of the base's weights, names of runs. */
    private static final Set<String> MEANINGLESS = Set.of(
            "bf16",
            "fp16",
            "tf32",
            "pure_bf16",
            "bf16_full_eval",
            "fp16_full_eval",
            "torch_dtype",
            "dtype",
            "load_in_4bit",
            "load_in_8bit",
            "use_bnb_nested_quant",
            "bnb_4bit_quant_type",
            "bnb_4bit_compute_dtype",
            "bnb_4bit_use_double_quant",
            "quantization_bit",
            "quantization_method",
            "quantization_type",
            "double_quantization",
            "upcast_layernorm",
            "upcast_lmhead_output",
            "do_eval",
            "overwrite_cache",
            "preprocessing_num_workers",
            "preprocessing_batch_size",
            "dataset_processes",
            "dataset_num_proc",
            "dataloader_num_workers",
            "dataloader_pin_memory",
            "dataloader_prefetch_factor",
            "dataloader_persistent_workers",
            "ddp_timeout",
            "ddp_find_unused_parameters",
            "ddp_backend",
            "trust_remote_code",
            "use_fast_tokenizer",
            "low_cpu_mem_usage",
            "low_cpu_mem_loading",
            "device_map",
            "flash_attention",
            "flash_attn",
            "sdp_attention",
            "xformers_attention",
            "eager_attention",
            "attn_implementation",
            "use_unsloth",
            "enable_liger_kernel",
            "use_liger_kernel",
            "liger_rope",
            "liger_rms_norm",
            "liger_glu_activation",
            "liger_fused_linear_cross_entropy",
            "flash_attn_cross_entropy",
            "flash_attn_rms_norm",
            "flash_attn_fuse_qkv",
            "flash_attn_fuse_mlp",
            "gpu_memory_limit",
            "lora_on_cpu",
            "use_unsloth_gc",
            "infer_backend",
            "print_param_status",
            "ignore_pad_token_for_loss",
            "lora_mlp_kernel",
            "lora_qkv_kernel",
            "lora_o_kernel",
            "plugins",
            "test_batches",
            "run_name",
            "project",
            "project_name",
            "remove_unused_columns",
            "tokenizer_type",
            "tokenizer_name",
            "model_type",
            "is_llama_derived_model",
            "is_falcon_derived_model",
            "is_mistral_derived_model",
            "is_qwen_derived_model",
            "tokenizer_use_fast",
            "cache_dir",
            "model_revision",
            "strict",
            "packing",
            "sample_packing",
            "eval_packing",
            "eval_sample_packing",
            "sample_packing_eff_est",
            "sample_packing_group_size",
            "sample_packing_bin_size",
            "eval_max_new_tokens",
            "pad_to_sequence_len",
            "padding_side",
            "pad_token",
            "inference_mode",
            "base_model_name_or_path",
            "auto_mapping",
            "revision",
            "local_rank",
            "save_safetensors",
            "disable_tqdm",
            "dataset_prepared_path",
            "dataset_dir",
            "dataset_keep_in_memory",
            "buffer_size",
            "media_dir",
            "ds_type",
            "gradient_checkpointing_kwargs",
            "use_reentrant",
            "torch_compile",
            "use_vllm",
            "cache_implementation",
            "log_level",
            "use_cache",
            "clear_cache_threshold");

    /** What becomes of a key. */
    enum Fate {
        DONE_ANYWAY,
        MEANS_NOTHING,
        WILL_NOT_HAPPEN,
        REFUSED,
        UNKNOWN
    }

    private ForeignKeys() {}

    /** @param name in lower case, with {@code _} */
    static Fate of(String name, JsonNode value) {
        Set<String> only = ONLY.get(name);
        if (only != null) {
            return values(value).allMatch(text -> only.contains(text)) ? Fate.DONE_ANYWAY : Fate.REFUSED;
        }
        if (MUST_BE_OFF.contains(name)) {
            return isOff(value) ? Fate.DONE_ANYWAY : Fate.REFUSED;
        }
        if (WILL_NOT_HAPPEN.contains(name) || OF_SERVICES.matcher(name).matches()) {
            return isOff(value) ? Fate.DONE_ANYWAY : Fate.WILL_NOT_HAPPEN;
        }
        return MEANINGLESS.contains(name) ? Fate.MEANS_NOTHING : Fate.UNKNOWN;
    }

    static boolean isKnown(String name) {
        return ONLY.containsKey(name)
                || MUST_BE_OFF.contains(name)
                || WILL_NOT_HAPPEN.contains(name)
                || MEANINGLESS.contains(name)
                || OF_SERVICES.matcher(name).matches();
    }

    /** {@code peft_type cannot be loha here, only lora}. */
    static String refusal(String key, String name, JsonNode value) {
        Set<String> only = ONLY.get(name);
        String shown = value.isContainerNode() ? value.toString() : value.asText();
        return only == null
                ? key + " is not supported, and is " + shown
                : key + " cannot be " + shown + " here, only "
                        + String.join(" or ", only.stream().sorted().toList());
    }

    /** Whether a value asks for nothing. */
    static boolean isOff(JsonNode value) {
        if (value.isContainerNode()) {
            return value.isEmpty();
        }
        String text = value.asText().toLowerCase(Locale.ROOT);
        return value.isNull()
                || List.of("", "false", "no", "none", "null", "0", "0.0").contains(text);
    }

    private static Stream<String> values(JsonNode value) {
        Stream<JsonNode> all = value.isArray() ? StreamSupport.stream(value.spliterator(), false) : Stream.of(value);
        return all.map(one -> one.asText().toLowerCase(Locale.ROOT));
    }
}
