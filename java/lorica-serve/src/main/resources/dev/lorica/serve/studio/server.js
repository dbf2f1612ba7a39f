// What is asked of the server, and what it tells while it goes on.

const KEY = "lorica-key";

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

let asking = null;

/** Asks for the key, once however many requests need it. */
function askForKey() {
  asking ??= new Promise(resolve => {
    const dialog = document.getElementById("key");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, document.getElementById("key-text").value);
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function send(path, options) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(options.headers ?? {}), cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server cannot be reached.");
    }
    if (response.status !== 401) return response;
    await askForKey();
  }
}

async function failure(response) {
  const text = await response.text();
  try {
    return new Error(JSON.parse(text).error.message);
  } catch {
    return new Error(`The server answered ${response.status}.`);
  }
}

async function answer(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw await failure(response);
  return response.json();
}

export const get = path => answer(path, {});

const posted = body => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const post = (path, body) => answer(path, posted(body));

/** The events of a response, each with its id; Server-Sent Events as the HTML standard has them, as far as the server uses them. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const event = { id: null, data: null };
      for (const line of text.slice(0, end).split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      text = text.slice(end + 2);
      if (event.data !== null) yield event;
    }
  }
}

/** What a model says, piece by piece. */
export async function* chat(body, signal) {
  const response = await send("/v1/chat/completions", { ...posted({ ...body, stream: true }), signal });
  if (!response.ok) throw await failure(response);
  for await (const { data } of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    for (const choice of chunk.choices) if (choice.delta.content) yield choice.delta.content;
  }
}

/**
 * Follows runs: what has happened in them, then what happens. Goes on where it was when the connection was lost, and while the page is
 * hidden there is none. An EventSource would do, but it cannot send a key.
 */
export function follow(names, heard, lost) {
  let last = null;
  let stopped = false;
  let abort = null;
  let wake = null;

  const pause = millis => new Promise(resolve => { wake = resolve; setTimeout(resolve, millis); });
  const onVisible = () => { if (document.hidden) abort?.abort(); else wake?.(); };
  document.addEventListener("visibilitychange", onVisible);

  (async () => {
    let failures = 0;
    while (!stopped) {
      if (document.hidden) { await pause(3600e3); continue; }
      abort = new AbortController();
      try {
        const query = names.map(name => `run=${encodeURIComponent(name)}`).join("&");
        const response = await send(`/studio/api/events?${query}`, {
          headers: last === null ? {} : { "Last-Event-ID": last }, signal: abort.signal });
        if (!response.ok) throw await failure(response);
        failures = 0;
        lost(null);
        for await (const { id, data } of events(response)) {
          if (stopped) return;
          heard(JSON.parse(data));
          last = id ?? last;
        }
      } catch (error) {
        if (!stopped && error.name !== "AbortError") lost(error);
      }
      if (!stopped) await pause(Math.min(10_000, 300 * 2 ** failures++));
    }
  })();

  return () => {
    stopped = true;
    document.removeEventListener("visibilitychange", onVisible);
    abort?.abort();
    wake?.();
  };
}
