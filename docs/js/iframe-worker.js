// The search of these pages runs in a worker, which browsers do not start for pages that are opened from disk.
// There, its script runs in a hidden frame instead. Pages that come from a server keep their real workers.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => this.hear(data);
      const script = this.inside.document.createElement("script");
      script.src = new URL(address, location.href).href;
      this.ready = new Promise((resolve) => script.addEventListener("load", resolve));
      this.inside.document.body.append(script);
    }

    postMessage(data) {
      this.ready.then(() => this.inside.onmessage({ data }));
    }

    hear(data) {
      const message = new MessageEvent("message", { data });
      this.onmessage?.(message);
      this.dispatchEvent(message);
    }
  };
}
