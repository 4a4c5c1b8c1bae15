"""A page in a real browser that stands for a notebook, and its connection to the widget in Python."""

from __future__ import annotations

import base64
import json
from collections import deque

from browser import opened, wait_until

# A notebook's view is in a shadow root, where the notebook's own styles do not reach.
ROOT = "const root = document.querySelector('#cell > div')?.shadowRoot ?? document;"

# A page that stands for a notebook: it keeps what the view sends, and hands it what the kernel answers.
NOTEBOOK = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">
<style>#cell dl dt { float: left; width: 20% }</style><body><div id="cell"></div><div id="again"></div><script>
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
window.sent = [];
window.errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
const listeners = {};
const call = (event, ...values) => [...(listeners[event] ?? [])].forEach((listener) => listener(...values));
window.model = {
  state: STATE,
  get: (name) => model.state[name],
  set: (name, value) => { model.state[name] = value; },
  save_changes: () => {},
  send: (content) => sent.push(content),
  on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
  off: (event, listener) => listeners[event]?.delete(listener),
};
window.deliver = (content, buffers) =>
  call("msg:custom", content, buffers.map((text) => new DataView(bytes(text).buffer)));
window.change = (name, value) => { model.state[name] = value; call(`change:${name}`); };
import(URL.createObjectURL(new Blob([new TextDecoder().decode(bytes("MODULE"))], { type: "text/javascript" })))
  .then((module) => CELLS.forEach((id) => module.default.render({ model, el: document.getElementById(id) })));
</script></body>"""


class Notebook:
    """Carries messages between a view in the browser and its widget in Python.

    Whoever sends in Python, also a thread, is done at once; `carry` takes the messages over in both directions.
    """

    kernel = True
    comm_id = "notebook"

    def __init__(self, driver, view, path, cells=("cell",)):
        self.driver, self.view, self.waiting = driver, view, deque()
        state = json.dumps({"index": view.index, "state": view.state}).replace("<", "\\u003c")
        module = base64.b64encode(str(view._esm).encode()).decode()
        page = NOTEBOOK.replace("STATE", state, 1).replace("MODULE", module, 1)
        path.write_text(page.replace("CELLS", json.dumps(cells), 1), "utf-8")
        view.comm = self
        self.address = opened(driver, path)

    def on_msg(self, callback):
        pass

    def close(self, *args, **kwargs):
        pass

    def send(self, data=None, metadata=None, buffers=None):
        # What crosses to the browser is JSON of this moment.
        texts = [base64.b64encode(bytes(buffer)).decode() for buffer in buffers or []]
        self.waiting.append((json.dumps(data, allow_nan=False), texts))

    def carry(self):
        for content in self.driver.execute_script("return sent.splice(0)"):
            self.view._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
        self.deliver()
        return True

    def deliver(self):
        """Only what the kernel has sent."""
        while self.waiting:
            text, buffers = self.waiting.popleft()
            data = json.loads(text)
            if data["method"] == "custom":
                self.driver.execute_script("deliver(arguments[0], arguments[1])", data["content"], buffers)
            elif data["method"] == "update":
                for name, value in data["state"].items():
                    self.driver.execute_script("change(arguments[0], arguments[1])", name, value)

    def wait_until(self, condition, what=""):
        wait_until(lambda: self.carry() and condition(), what=what)
