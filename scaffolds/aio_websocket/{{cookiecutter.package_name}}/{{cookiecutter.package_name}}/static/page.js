// The page's two connections, a WebSocket and an EventSource. Each tells what
// becomes of it in its section of the page, and comes back when it was lost.

// Milliseconds before the first attempt to connect again; then twice as many, and
// so on. A part of them is random, so that not everybody comes back at once.
const FIRST_DELAY = 500;
const LAST_DELAY = 10_000;

// Lines that a list keeps.
const KEPT = 200;

class Backoff {
  #delay = FIRST_DELAY;

  reset() {
    this.#delay = FIRST_DELAY;
  }

  next() {
    const delay = this.#delay * (0.75 + Math.random() / 4);
    this.#delay = Math.min(2 * this.#delay, LAST_DELAY);
    return delay;
  }
}

// A list of lines, and a word on the state of the connection.
class Display {
  constructor(section) {
    this.lines = section.querySelector(".lines");
    this.state = section.querySelector(".state");
  }

  show(state) {
    this.state.textContent = state;
    this.state.dataset.state = state;
  }

  write(word, text = "") {
    const { lines } = this;
    const below = lines.scrollHeight - lines.scrollTop - lines.clientHeight;
    const line = document.createElement("li");
    const head = document.createElement("b");
    head.textContent = word;
    line.className = word.toLowerCase();
    // As text, never as HTML: others wrote it.
    line.append(head, " ", text);
    lines.append(line);
    while (lines.children.length > KEPT) {
      lines.firstChild.remove();
    }
    // Who has scrolled up to read stays there.
    if (below < 2) {
      lines.scrollTop = lines.scrollHeight;
    }
    return line;
  }
}

function chat(section) {
  const address = new URL(section.dataset.address, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const display = new Display(section);
  const backoff = new Backoff();
  const form = section.querySelector("form");
  const input = form.querySelector("input");
  const button = form.querySelector("button");
  let socket;

  function connect() {
    let isOpen = false;
    display.show("connecting");
    socket = new WebSocket(address);
    socket.addEventListener("open", () => {
      isOpen = true;
      backoff.reset();
      button.disabled = false;
      display.show("connected");
      display.write("CONNECTED");
    });
    socket.addEventListener("message", ({ data }) => {
      display.write("RESPONSE", data);
    });
    // This event also tells of an attempt that failed, after "error".
    socket.addEventListener("close", ({ code, reason }) => {
      button.disabled = true;
      display.show("disconnected");
      if (isOpen) {
        display.write("DISCONNECTED", `${code} ${reason}`.trim());
      }
      setTimeout(connect, backoff.next());
    });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    // What cannot be sent stays in the field.
    if (socket.readyState === WebSocket.OPEN) {
      socket.send(input.value);
      display.write("SENT", input.value);
      form.reset();
    }
  });

  connect();
}

function ticks(section) {
  const address = new URL(section.dataset.address, location.href);
  const display = new Display(section);
  const backoff = new Backoff();

  function remember(lastEventId) {
    address.searchParams.set("lastEventId", lastEventId);
  }

  function connect() {
    const source = new EventSource(address);
    source.addEventListener("open", () => {
      backoff.reset();
      display.show("connected");
    });
    source.addEventListener("tick", ({ data, lastEventId }) => {
      const { number, time } = JSON.parse(data);
      const at = new Date(time).toLocaleTimeString();
      display.write("TICK", `${number}, ${at}`).dataset.number = number;
      remember(lastEventId);
    });
    // The server cannot tell what was missed: it was restarted, or it is long ago.
    source.addEventListener("reset", ({ lastEventId }) => {
      display.write("RESET", "some ticks are missing");
      remember(lastEventId);
    });
    // The browser connects again by itself, unless something other than an event
    // stream was the answer: a proxy's error page, for example. It remembers the
    // last event itself, too, but not from one EventSource to the next.
    source.addEventListener("error", () => {
      display.show("disconnected");
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(connect, backoff.next());
      }
    });
  }

  connect();
}

chat(document.getElementById("chat"));
ticks(document.getElementById("ticks"));
