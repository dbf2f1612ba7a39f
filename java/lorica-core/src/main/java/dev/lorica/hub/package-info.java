/**
 * Models and adapters from Hugging Face's hub, by names such as {@code hf:owner/repo:model-Q4_K_M.gguf}.
 *
 * <p>{@link dev.lorica.hub.HubName} is such a name, {@link dev.lorica.hub.Hub} gives the local file that it stands for and
 * downloads it first where need be, as {@link dev.lorica.hub.HubConfig} says, and tells a {@link dev.lorica.hub.HubListener}.
 * {@code Choice} has the rule which file of a repository is meant, {@code HubClient} the requests, {@code Download} one file on its
 * way, {@code HubCache} the folders, which are those of Hugging Face's own programs.
 *
 * <p>What a hub sends is not trusted: names stay in their folder, sizes and checksums must be those announced, and the token goes to
 * the endpoint alone.
 */
package dev.lorica.hub;
