// Elements are made by calls, never from text: nothing a job is named can become markup.
const SVG = 'http://www.w3.org/2000/svg';

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const h = (tag, props = {}, ...children) =>
  fill(document.createElement(tag), props, children);
export const svg = (tag, props = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), props, children);

// Writes only what differs, so that selections, screen readers and animations are left alone.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function copyButton(text, label = 'Copy') {
  const button = h('button', { type: 'button', class: 'lt-button copy' }, label);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
      put(button, 'Copied');
    } catch {
      put(button, 'Select and copy it by hand'); // no clipboard: not a secure origin
    }
    setTimeout(() => put(button, label), 1_600);
  });
  return button;
}

// Rows by key: existing ones are updated in place, so focus and scrolling survive.
export function keyed(list, items, key, make, update) {
  const old = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let place = list.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = old.get(name);
    if (!node) {
      node = make(item);
      node.dataset.key = name;
    }
    old.delete(name);
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  }
  for (const gone of old.values()) gone.remove();
}

// Runs `work` a moment after the first of several calls, and never twice at once.
export function coalesce(work, wait = 250) {
  let timer = null;
  let busy = false;
  let again = false;
  async function run() {
    timer = null;
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
      if (again) { again = false; trigger(); }
    }
  }
  function trigger() {
    if (busy) again = true;
    else timer ??= setTimeout(run, wait);
  }
  return trigger;
}
