package dev.lorica;

/**
 * What a model says about itself.
 *
 * @param architecture  {@code llama}
 * @param name          its name in the file, {@code ""} when it has none
 * @param fileType      the tensor type that most weights have: {@code Q4_0}
 * @param device        the device chosen: {@code cpu}, {@code cuda:0}
 * @param deviceDetail  which, and with which kernels
 * @param deviceReason  why {@code auto} took it; empty where it was named
 * @param fingerprint   16 hex digits over architecture, shapes and sampled weights; names the base in adapters
 * @param layers        transformer blocks
 * @param embedding     width of the residual stream
 * @param heads         query heads
 * @param kvHeads       key and value heads
 * @param headDim       width of a head
 * @param feedForward   width of the feed-forward network
 * @param vocabSize     token ids
 * @param contextLength positions that it was trained with
 * @param tiedOutput    whether the output head is the embedding matrix
 * @param parameters    elements of all weight tensors
 * @param weightBytes   bytes of all weight tensors in the file
 */
public record ModelInfo(
        String architecture,
        String name,
        String fileType,
        String device,
        String deviceDetail,
        String deviceReason,
        String fingerprint,
        int layers,
        int embedding,
        int heads,
        int kvHeads,
        int headDim,
        int feedForward,
        int vocabSize,
        int contextLength,
        boolean tiedOutput,
        long parameters,
        long weightBytes) {
    /** {@return {@code cpu (AMX-BF16, bf16, 2 threads); no GPU: no NVIDIA driver (libcuda.so.1 not found)}} */
    public String deviceInWords() {
        return DeviceInfo.inWords(device, deviceDetail, deviceReason);
    }
}
